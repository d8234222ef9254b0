"""`report.json` as text, page and pictures; nothing is computed here."""
