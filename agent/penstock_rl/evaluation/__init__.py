"""How policies are compared: runs of scenarios, statistics over them, tables and plots.

`statistics`, `results`, `tables` are computation only; `runner` starts processes and writes files.
"""
