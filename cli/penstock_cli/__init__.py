"""The program `penstock`; every role is imported only when it is asked for."""
