"""How one run goes: tasks and their keys, the ports, the Run, its budget, its ledger, its errors.

Light imports only: nothing here imports numpy, and nothing here imports another room of millrace.
"""
