"""Ledger -> where the core-seconds went -> pictures -> report. Pure but for `report` and `charts.save_chart`.

Nothing is imported here: the command that needs a part imports it (`accounting`, `timeline`, `charts`, `report`).
"""
