"""The main job, shown: apply a VIP, serve requests, learn. `python -m e2e.demo` is `make demo`."""
