"""The HTML report, and one pair's archive explained."""
