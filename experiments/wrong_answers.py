"""Do wrong answers teach more than right ones?

    python experiments/wrong_answers.py            about 4 minutes on one core; goes on cell by cell where it was stopped
    python experiments/wrong_answers.py --easier   7 minutes: the same where half of the answers are right, two numbers up to 25
    python experiments/wrong_answers.py --quick    3 minutes, its warm start included: one seed, one rate

The claim (arXiv:2506.01347): a policy that is only ever pushed away from its wrong answers gets better
at every k, as far as with both kinds, and keeps what it can do with many samples; one that is only
pulled towards its right answers gains at k = 1 and loses at large k.

    A = r            right answers alone: 1, 0          (in the paper PSR)
    A = r - 1        wrong answers alone: 0, -1         nsr
    A = 2 r - 1      both, alike: 1, -1
    A = 1.1 r - 1    both, right ones count a tenth: 0.1, -1     wreinforce

and GRPO, which compares with the mean of a group, beside them. The setting, the rates and the budget
are those of gap.py, whose runs are used where they are there; pass@k from 64 samples of each problem.
The sign + or - says that pass@k lies above or below the warm start of the same seed for all seeds.
Results: docs/wrong_answers.{md,json,png}, docs/wrong_answers-easier.{md,json,png}.
"""
from cells import main, spread
from gap import FULL as GAP, QUICK as GAP_QUICK, cell, chosen, pass_at

ARMS = {"right alone": "right answers alone", "nsr": "wrong answers alone", "both": "both, alike",
        "wreinforce": "both, right ones a tenth", "grpo": "grpo"}
FULL = GAP | {"methods": tuple(ARMS)}
QUICK = GAP_QUICK | {"methods": ("right alone", "nsr", "both")}


def easier(plan):
    """two numbers up to 25, where half of the answers are right, and a third rate"""
    return plan | {"task": {"numbers": 2, "max_number": 25}, "rates": ("1e-4", *plan["rates"])}


def sign(before, after):
    """+ or - where every seed agrees, otherwise nothing.

    >>> sign([0.5, 0.5], [0.75, 0.625]), sign([0.5, 0.5], [0.25, 0.75])
    ('+', '')
    """
    differences = [b - a for a, b in zip(before, after)]
    return "+" if min(differences) > 0 else "-" if max(differences) < 0 else ""


def report(folder, plan, get):
    import small
    n, seeds = plan["n"], plan["seeds"]
    ks = [2 ** i for i in range(20) if 2 ** i <= n]
    best, val = chosen(plan, get)
    found = get([(name, lr, seed, "test") for name, lr in [("warm start", "-"), *best.items()] for seed in seeds])
    at = lambda name, k: [pass_at(found[name, best.get(name, "-"), seed, "test"], n, k) for seed in seeds]
    shown = [k for k in (1, 8, 64) if k <= n]
    lines = ["| what teaches | learning rates: pass@1 on val, seed 0 | " + " | ".join(f"pass@{k}" for k in shown)
             + " | entropy at the end |", "|---" * (3 + len(shown)) + "|"]
    for name in ("warm start", *best):
        rates = ", ".join(f"{'**' * (lr == best[name])}{lr}: {val[name, lr]:.3f}{'**' * (lr == best[name])}"
                          for lr in plan["rates"]) if name in best else ""
        cells = [f"{spread(at(name, k))} {sign(at('warm start', k), at(name, k))}".strip() for k in shown]
        ends = [found[name, best[name], seed, "test"]["entropy"] for seed in seeds] if name in best else []
        lines.append(f"| {ARMS.get(name, name)} | {rates} | {' | '.join(cells)} | {spread(ends) if ends else ''} |")
    lines.append(f"\n{plan['problems']} test problems, {n} samples each, {plan['tokens']:,} sampled tokens a run; mean over the "
                 f"seeds {', '.join(map(str, seeds))} (lowest to highest). + and -: above or below the warm start in every seed. "
                 "[What it means](claims.md#wrong-answers).")
    curves = {ARMS.get(name, name): small.band(ks, [at(name, k) for k in ks]) for name in ("warm start", *best)}
    return "\n".join(lines), [{"title": "pass@k on test; bands: lowest to highest seed", "x": "k: samples per problem",
                               "y": "share of problems with a right one", "curves": curves, "log": 2}]


if __name__ == "__main__":
    main(__file__, __doc__, cell, report, FULL, QUICK, easier=easier)
