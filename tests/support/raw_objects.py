"""Objects as an API server may hand them out: optional parts absent or null, odd texts and numbers, other versions."""

from __future__ import annotations

import copy

from hypothesis import strategies as st

from tests.support.bad_objects import GOOD

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(max_size=40)
    | st.sampled_from(["10.0.0.1", "010.0.0.1", "http", "IPv4", "x" * 5000, 70000, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
addresses = st.sampled_from(
    ["10.0.0.1", "010.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "fe80::1", "127.0.0.1", "None", "", "server.example"]
) | st.text(max_size=40)
networks = st.sampled_from(["10.0.0.0/8", "010.0.0.0/24", "10.0.0.1/24", "fd00::/8", "10.0.0.0", ""]) | st.text()
numbers = st.integers(-(2**31), 2**31) | st.sampled_from([0, 1, 80, 8080, 65535, 65536, 70000])
names = st.sampled_from(["", "http", "8080", "a" * 63]) | st.text(max_size=70)
times = st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456Z", "0001-01-01T00:00:00Z", "yesterday"])
versions = st.sampled_from(["1", "7", "99999999999999999999", "9" * 5000, "", "abc", "-5", "\u0663"])
labels = st.dictionaries(
    st.sampled_from(["penstock.dev/dataplane", "penstock.dev/component", "kubernetes.io/service-name", "x"]),
    st.sampled_from(["a", "b", "edge", ""]) | st.text(max_size=10),
    max_size=3,
)


def objects(**fields):
    """Objects of a schema: each field may be absent or null."""
    return st.fixed_dictionaries({}, optional={name: field | st.none() for name, field in fields.items()})


def named(namespaced, **fields):
    """Objects that have what the API server always gives, and a schema besides."""
    metadata = st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b"]),
            **({"namespace": st.sampled_from(["default", "other"])} if namespaced else {}),
        },
        optional={
            "uid": st.sampled_from(["u1", "u2"]),
            "resourceVersion": versions,
            "generation": st.integers(0, 5),
            "labels": labels | st.none(),
            "annotations": labels | st.none(),
            "creationTimestamp": times | st.none(),
            "deletionTimestamp": times,
            "managedFields": st.lists(objects(manager=st.text(max_size=5)), max_size=2),
        },
    )
    return st.fixed_dictionaries({"metadata": metadata}, optional={n: f | st.none() for n, f in fields.items()})


conditions = st.lists(
    objects(type=st.sampled_from(["Ready", "Other"]), status=st.text(max_size=8), lastTransitionTime=times)
)
nodes = named(
    False,
    spec=objects(
        podCIDR=networks,
        podCIDRs=st.lists(networks, max_size=3),
        taints=st.lists(objects(key=st.text(max_size=9), value=st.text(max_size=9), effect=st.text(max_size=9))),
    ),
    status=objects(
        addresses=st.lists(objects(type=st.sampled_from(["InternalIP", "Hostname", "?"]), address=addresses)),
        conditions=conditions,
    ),
)
services = named(
    True,
    spec=objects(
        type=st.sampled_from(["ClusterIP", "ExternalName", "?"]),
        clusterIP=addresses,
        clusterIPs=st.lists(addresses, max_size=3),
        externalIPs=st.lists(addresses, max_size=3),
        ports=st.lists(objects(name=names, port=numbers, protocol=st.text(), targetPort=names | numbers)),
    ),
    status=objects(
        loadBalancer=objects(ingress=st.lists(objects(ip=addresses, hostname=st.text(max_size=9)), max_size=3))
    ),
)
service_cidrs = named(False, spec=objects(cidrs=st.lists(networks, max_size=3)))
slices = named(
    True,
    addressType=st.sampled_from(["IPv4", "IPv6", "FQDN", "?"]),
    ports=st.lists(objects(name=names, protocol=st.sampled_from(["TCP", "UDP", "SCTP", "?"]), port=numbers)),
    endpoints=st.lists(
        st.fixed_dictionaries(
            {"addresses": st.lists(addresses, max_size=3)},
            optional={
                "conditions": objects(ready=st.booleans(), serving=st.booleans(), terminating=st.booleans())
                | st.none(),
                "targetRef": objects(kind=st.text(max_size=5), uid=st.text(max_size=300)) | st.none(),
            },
        )
    ),
)


@st.composite
def other_versions(draw, kind):
    """An object of ours as another version may have stored it: some field is another, gone or new."""
    raw = copy.deepcopy(GOOD[kind])
    raw["metadata"] |= {"uid": draw(st.sampled_from(["u1", "u2"])), "resourceVersion": draw(versions), "generation": 1}
    body = "report" if kind == "report" else "spec"
    if kind == "vip" and draw(st.booleans()):
        raw["spec"] |= {"backends": {"service": {"name": "a"}}, "ports": [{"port": 80, "targetPort": draw(names)}]}
    if kind != "report" and draw(st.booleans()):
        raw["status"] = {"addresses": ["203.0.113.10"], "dataPlaneName": "edge", "observedGeneration": 1}
    for _ in range(draw(st.integers(0, 3))):
        _spoil(draw, raw.get(draw(st.sampled_from([body, "status"])), raw[body]))
    return raw


def _spoil(draw, place):
    """Replace, remove or add something below a place."""
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and draw(st.booleans()):
            place = place[key]
            continue
        if isinstance(place, dict) and draw(st.booleans()):
            del place[key]
        else:
            place[key] = draw(junk)
        return
    if isinstance(place, dict):
        place[draw(st.text(max_size=5))] = draw(junk)
