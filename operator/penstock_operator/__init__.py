"""The cluster side: events become keys, keys a pure plan, the plan is applied server-side."""
