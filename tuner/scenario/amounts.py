"""How amounts are put to people: dollars, latencies and rates, to the digits that tell."""


def dollars(value: float) -> str:
    """Cents from a dollar up, three significant digits below."""
    return f"${value:.2f}" if value >= 1 else f"${value:#.3g}"


def milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"  # noqa: PLR2004


def rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004
