"""What the winner costs and returns, and the energy that it takes."""

from collections.abc import Iterator

from search_spaces.hardware.system import find_system, list_price
from tuner.scenario.amounts import dollars, rate
from tuner.show.report.economics import FIFTEENFOLD, HOURS_PER_MONTH, YEAR_S
from tuner.show.report.page import Section, Table
from tuner.show.report.report import Report
from tuner.show.report.sections.words import counted, whole_dollars


def money(report: Report) -> Section:
    found, scenario = report.month, report.finished.scenario
    price = scenario.price
    energy = f" + ${price.usd_per_kwh:g}/kWh" if price.usd_per_kwh else ""
    tokens = counted(report)
    text = [
        f"At ${price.usd_per_gpu_hour:.2f}/GPU-hour{energy}: {price.source}.",
        (
            f"One deployment serves tokens/s x 3600 x {HOURS_PER_MONTH} tokens a month around the clock; as many "
            f"whole deployments are held as the tokens sold take. Cost = GPUs x $/GPU-hour x {HOURS_PER_MONTH}; "
            f"revenue = {tokens} tokens sold x price; return = revenue / cost."
        ),
    ]
    if report.demand.tokens_per_month is None:
        text.append("No demand was given (--tokens-per-month): all that one deployment can serve counts as sold.")
    if found.revenue is None:
        text.append("No price was given (--revenue-per-million): revenue and return are left out.")
    text.append(
        f"The worked example is the claim “{FIFTEENFOLD.text}” ({FIFTEENFOLD.source}). It takes for granted that the "
        f"rack is full for {FIFTEENFOLD.years:g} years and every token, of input and output, is sold. The price of a "
        "token is not published: revenue / tokens implies it."
    )
    heads = ["a month", *(item.label for item in report.contenders)]
    months = Table(caption="Cost, revenue and return", heads=heads, rows=list(_month_rows(report)))
    return Section(anchor="money", title="Cost and return", text=text, blocks=[months, _claim(report)])


def _month_rows(report: Report) -> Iterator[list[str]]:
    months = [report.month_of(item) for item in report.contenders]
    yield [f"{counted(report)} tokens sold", *(f"{m.tokens / 1e9:,.4g} billion" for m in months)]
    yield ["deployments", *(str(m.deployments) for m in months)]
    yield ["GPUs", *(str(m.gpus) for m in months)]
    yield ["utilisation", *(f"{m.utilisation:.0%}" for m in months)]
    yield ["cost", *(whole_dollars(m.cost) for m in months)]
    yield ["cost of a million tokens sold", *(dollars(m.usd_per_million) for m in months)]
    if report.month.revenue is not None:
        yield ["revenue", *(whole_dollars(m.revenue or 0) for m in months)]
        yield ["profit", *(whole_dollars(m.profit or 0) for m in months)]
        yield ["return (revenue / cost)", *(f"{m.return_on_cost or 0:.3g}x" for m in months)]


def _claim(report: Report) -> Table:
    """The published return, the same rack rented, and the same sum for the winner where a price was given."""
    claim = FIFTEENFOLD
    hours = claim.years * YEAR_S / 3600
    rent = claim.gpus * list_price(find_system(claim.system), "hyperscaler").usd_per_gpu_hour * hours
    columns = [
        _return_column("as published", claim.gpus, claim.tokens, claim.usd_per_million, claim.investment, "investment"),
        _return_column("the same, rented at list price", claim.gpus, claim.tokens, claim.usd_per_million, rent, "rent"),
    ]
    price = report.demand.usd_per_million
    if price is not None:
        gpus = report.finished.scenario.charged_gpus(report.contenders[0].measurement.gpus)
        spent = gpus * report.finished.scenario.price.usd_per_gpu_second * claim.years * YEAR_S
        tokens = report.month.capacity * hours / HOURS_PER_MONTH
        columns.append(_return_column("this winner, at your price", gpus, tokens, price, spent, "rent"))
    names = ["", "GPUs", "tokens in three years, always full", "tokens/s/GPU", "price of a million tokens"]
    names += ["revenue = tokens x price", "cost", "return = revenue / cost"]
    rows = [list(row) for row in zip(names, *columns, strict=True)]
    caption = "A worked example of a return: the published fifteenfold"
    return Table(caption=caption, heads=rows[0], rows=rows[1:])


def _return_column(title: str, gpus: int, tokens: float, price: float, spent: float, kind: str) -> list[str]:
    revenue = tokens / 1e6 * price
    return [
        title,
        str(gpus),
        f"{tokens / 1e12:,.3g} trillion",
        rate(tokens / (FIFTEENFOLD.years * YEAR_S) / gpus),
        dollars(price),
        whole_dollars(revenue),
        f"{whole_dollars(spent)} ({kind})",
        f"{revenue / spent:.3g}x",
    ]


def energy(report: Report) -> Section:
    found, scenario = report.energy, report.finished.scenario
    text = [
        (
            f"{scenario.price.all_in_watts_per_gpu:,.0f} W for each GPU charged, all in (cooling and losses included, "
            "idle or not; stated with the price, not measured)."
        )
    ]
    rows = [
        ["tokens/s/MW", rate(found.output_tokens_per_s_per_mw), rate(found.total_tokens_per_s_per_mw)],
        ["Wh for a million tokens", rate(found.wh_per_million_output_tokens), rate(found.wh_per_million_total_tokens)],
    ]
    heads = ["", "output tokens", "input and output tokens"]
    table = Table(caption=f"The winner's energy, at {found.watts / 1000:,.4g} kW", heads=heads, rows=rows)
    return Section(anchor="energy", title="Energy", text=text, blocks=[table])
