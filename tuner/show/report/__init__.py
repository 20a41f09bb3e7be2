"""The report: a finished search as a page to forward, and as Markdown, JSON or CSV."""
