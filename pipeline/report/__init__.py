"""The HTML reports of runs."""
