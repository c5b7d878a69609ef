"""The data plane without VPP: control socket and supervisor around packet threads written in C."""
