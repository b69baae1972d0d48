"""Programs that run one foreign HTTP server each; what they got is told by `report.py`, in one form for all."""
