"""One self-contained HTML page that explores a fit and its outliers. Needs the extra `report`.

    from robusta_prob import report
    report.write_report(fit, data, scores, "report.html", title="My survey")

`explore` makes what a page shows of one fit, `joined` puts several together, `write_page` writes it.
"""

from robusta_prob.report.building import explore
from robusta_prob.report.explorer import Explorer, Run, Window
from robusta_prob.report.joining import joined
from robusta_prob.report.writing import write_page, write_report

__all__ = ["Explorer", "Run", "Window", "explore", "joined", "write_page", "write_report"]
