"""What a run says of itself at its end, as a few lines to read."""


def duration(seconds):
    """Seconds as a person says them.

    >>> duration(20), duration(70), duration(200)
    ('20 seconds', '1 minute', '3 minutes')
    """
    minutes = round(seconds / 60)
    return f"{seconds:.0f} seconds" if minutes < 1 else f"{minutes} minute{'s' * (minutes > 1)}"


def report(summary):
    """The summary as a few lines to read."""
    before, after, baselines = summary["before"], summary["after"], summary["baselines"]
    before, after = ({**r, "legal": r["legal"] / r["attempts"] if r["attempts"] else 0.0} if "legal" in r else r for r in (before, after))
    names = [n for n in ("greedy", "pass@1", "pass@8", "length", "attempts", "legal", "chain") if n in after]
    lines = [f"{after['problems']} test problems" + "".join(f"{n:>10}" for n in names)]
    for title, result in (("warm start", before), ("after RL", after))[:2 if summary["steps"] else 1]:
        lines.append(f"{title:<{len(lines[0]) - 10 * len(names)}}" + "".join(f"{result[n]:>10.3f}" if result[n] < 2 else f"{result[n]:>10.1f}" for n in names))
    for name, title in (("random_search", "random search with as many attempts"), ("demonstrations", "the demonstrations themselves"),
                        ("continued_sft", "the warm start trained on for as long as RL took")):
        if baselines[name] is not None:
            lines.append(f"{baselines[name]:>24.3f}    {title}")
    seconds = summary["seconds"]
    lines.append(f"seconds: warm start {seconds['warm_start']:.0f}, RL {seconds['rl']:.0f}, evaluation {seconds['evaluation']:.0f}")
    return "\n".join(lines)
