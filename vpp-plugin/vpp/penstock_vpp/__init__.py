"""The data plane `vpp`: the control protocol of `penstock_embedded`, answered by VPP's binary API.

What belongs here: messages into calls of the plugin's API and back. What decides about changes is
`penstock_embedded.plan`.
"""
