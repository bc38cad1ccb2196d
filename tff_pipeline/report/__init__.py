"""Run directories -> tables, figures, one self-contained HTML page."""
