penstock_sim.(SERVER_FIELDS|CLASS_FIELDS|RATE_FIELDS|TRACE_FIELDS|EVENT_FIELDS):
    \1: tuple[str, ...] = ...

penstock_sim.(WORK_KINDS|EVENT_KINDS|RULES):
    \1: dict[str, int] = ...

penstock_sim.SimulationError:
    class SimulationError(RuntimeError):
        """The simulation cannot go on, or the core refused what it was given."""
