// Bindings of lbio: the threads of the embedded data plane. Packets never meet Python; control calls do,
// without the interpreter's lock, since they may wait for the control thread.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "lbio.h"
#include "modules.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace
{

PyObject *dataplane_error = nullptr; // penstock_core.DataplaneError, set once by register_embedded

// A failed call of lbio, on its way to becoming a DataplaneError with attributes `core` and `errno`.
struct Failure : std::runtime_error {
    lbio_problem_t problem;
    explicit Failure(const lbio_problem_t &p) : std::runtime_error(p.text), problem(p) {}
};

void check(int done, const lbio_problem_t &problem)
{
    if (done != 0) {
        throw Failure(problem);
    }
}

template <size_t N> void copy_bytes(uint8_t (&out)[N], const nb::bytes &bytes, const char *what)
{
    if (bytes.size() != N) {
        throw std::invalid_argument(std::string(what) + ": " + std::to_string(N) +
                                    " bytes are wanted, " + std::to_string(bytes.size()) +
                                    " were given");
    }
    std::memcpy(out, bytes.data(), N);
}

nb::bytes to_bytes(const lbrl_address_t &address)
{
    return nb::bytes(address.bytes, sizeof(address.bytes));
}

using Source = std::tuple<nb::bytes, uint16_t, uint16_t>;
using Backend = std::tuple<uint64_t, nb::bytes, uint16_t, int, float>;

std::vector<lbrl_backend_config_t> to_backends(const std::vector<Backend> &backends)
{
    std::vector<lbrl_backend_config_t> out(backends.size());
    for (size_t i = 0; i < backends.size(); i++) {
        const auto &[id, address, port, state, weight] = backends[i];
        out[i].id = id;
        copy_bytes(out[i].address.bytes, address, "address of a backend");
        out[i].port = port;
        out[i].state = static_cast<uint8_t>(state);
        out[i].weight = weight;
    }
    return out;
}

lbrl_timeouts_t to_timeouts(const std::vector<uint32_t> &ms)
{
    if (ms.size() != 7) {
        throw std::invalid_argument("timeouts: 7 numbers of milliseconds are wanted");
    }
    return {ms[0], ms[1], ms[2], ms[3], ms[4], ms[5], ms[6]};
}

nb::dict to_dict(const lbrl_attach_report_t &report)
{
    static const char *const names[] = {"formatted", "attached", "replaced", "imported"};
    nb::dict out;
    out["status"] = names[report.status];
    out["vips"] = report.vips;
    out["flows"] = report.flows;
    out["flows_dropped"] = report.flows_dropped;
    out["flows_expired"] = report.flows_expired;
    out["version"] = report.version;
    return out;
}

nb::dict to_dict(const lbrl_backend_status_t &backend)
{
    nb::dict out;
    out["id"] = backend.id;
    out["address"] = to_bytes(backend.address);
    out["port"] = backend.port;
    out["slot"] = backend.slot;
    out["state"] = static_cast<int>(backend.state);
    out["generation"] = backend.generation;
    out["removed"] = backend.removed != 0;
    out["weight"] = backend.weight;
    out["base"] = backend.base;
    out["open_flows"] = backend.open_flows;
    out["flows"] = backend.flows;
    out["packets"] = backend.packets;
    out["bytes"] = backend.bytes;
    return out;
}

// What a person has to mend, in sentences.
nb::list findings_of(const lbio_stats_t &stats)
{
    nb::list findings;
    if (!stats.arena_kept) {
        findings.append(std::string(stats.arena.text) +
                        "; flows are in this process's memory alone and end with it");
    }
    if (stats.unshown > 0) {
        findings.append(
            std::string(stats.shortage.text) +
            "; VIPs forward without frames, by configured weights, until there is room");
    }
    return findings;
}

// Owner of an lbio_t. Every call on a closed one raises.
class EmbeddedDataplane
{
    // Calls with the data plane, which stays open meanwhile, and without the interpreter's lock.
    template <typename Function> auto with_opened(Function function)
    {
        nb::gil_scoped_release unlocked;
        const std::shared_lock<std::shared_mutex> held(mutex_);
        if (io_ == nullptr) {
            throw std::invalid_argument("the data plane has been closed");
        }
        return function(io_);
    }

    template <typename Function> void call(Function function)
    {
        lbio_problem_t problem = {};
        check(with_opened([&](lbio_t *io) { return function(io, &problem); }), problem);
    }

    // Waits for those who are in a call.
    void end(void (*function)(lbio_t *))
    {
        nb::gil_scoped_release unlocked;
        const std::unique_lock<std::shared_mutex> alone(mutex_);
        if (lbio_t *io = std::exchange(io_, nullptr)) {
            function(io);
        }
    }

  public:
    EmbeddedDataplane(const std::string &directory, const std::string &instance_id,
                      const nb::bytes &boot_id, uint32_t flows, uint32_t vips, uint32_t slots,
                      uint32_t workers, uint32_t interval_ms, uint32_t grace_ms,
                      std::optional<uint32_t> group)
    {
        lbio_config_t config = {};
        lbio_problem_t problem = {};
        config.directory = directory.c_str();
        config.instance_id = instance_id.c_str();
        copy_bytes(config.boot_id, boot_id, "boot_id");
        config.flows = flows;
        config.vips = vips;
        config.slots = slots;
        config.workers = workers;
        config.interval_ms = interval_ms;
        config.grace_ms = grace_ms;
        config.group = group.has_value() ? static_cast<int64_t>(*group) : -1;
        nb::gil_scoped_release unlocked;
        check(lbio_open(&io_, &config, &report_, &problem), problem);
    }
    EmbeddedDataplane(const EmbeddedDataplane &) = delete;
    EmbeddedDataplane &operator=(const EmbeddedDataplane &) = delete;
    ~EmbeddedDataplane() { close(); }

    void start(const std::vector<int> &queues)
    {
        call([&](lbio_t *io, lbio_problem_t *problem) {
            return lbio_start(io, queues.data(), static_cast<uint32_t>(queues.size()), problem);
        });
    }

    void stop()
    {
        nb::gil_scoped_release unlocked;
        const std::shared_lock<std::shared_mutex> held(mutex_);
        if (io_ != nullptr) {
            lbio_stop(io_);
        }
    }

    void close() { end(lbio_close); }

    void withdraw() { end(lbio_withdraw); }

    void set_sources(const std::vector<Source> &sources)
    {
        std::vector<lbrl_nat_source_t> native(sources.size());
        for (size_t i = 0; i < sources.size(); i++) {
            const auto &[address, first, last] = sources[i];
            copy_bytes(native[i].address.bytes, address, "address of a NAT source");
            native[i].port_first = first;
            native[i].port_last = last;
        }
        call([&](lbio_t *io, lbio_problem_t *problem) {
            return lbio_sources_set(io, native.data(), static_cast<uint32_t>(native.size()),
                                    problem);
        });
    }

    void set_node(const nb::bytes &scheduler_key, uint32_t nodes)
    {
        uint8_t key[16];
        copy_bytes(key, scheduler_key, "scheduler_key");
        call([&](lbio_t *io, lbio_problem_t *problem) {
            return lbio_node_set(io, key, nodes, problem);
        });
    }

    void set_vip(uint64_t id, const std::vector<nb::bytes> &addresses, uint16_t port,
                 uint8_t protocol, bool client_affinity, int when_no_backends, int when_no_flow,
                 int scheduler, int load, uint32_t table_size, int level, int forwarding,
                 uint8_t dscp, uint16_t tunnel_mtu, const std::vector<uint32_t> &timeouts_ms,
                 uint32_t drain_ms, const std::vector<Backend> &backends)
    {
        std::vector<lbrl_backend_config_t> native = to_backends(backends);
        lbrl_vip_config_t config = {};
        if (addresses.size() > LBRL_ADDRESSES_MAX) {
            throw std::invalid_argument("addresses: at most 8");
        }
        for (size_t i = 0; i < addresses.size(); i++) {
            copy_bytes(config.addresses[i].bytes, addresses[i], "address");
        }
        config.id = id;
        config.address_count = static_cast<uint32_t>(addresses.size());
        config.port = port;
        config.protocol = protocol;
        config.client_affinity = client_affinity ? 1 : 0;
        config.when_no_backends = static_cast<uint8_t>(when_no_backends);
        config.when_no_flow = static_cast<uint8_t>(when_no_flow);
        config.scheduler = static_cast<uint8_t>(scheduler);
        config.load = static_cast<uint8_t>(load);
        config.feature_level = static_cast<uint8_t>(level);
        config.forwarding = static_cast<uint8_t>(forwarding);
        config.dscp = dscp;
        config.mtu = tunnel_mtu;
        config.table_size = table_size;
        config.timeouts = to_timeouts(timeouts_ms);
        config.drain_timeout = drain_ms;
        config.backends = native.data();
        config.backend_count = static_cast<uint32_t>(native.size());
        call([&](lbio_t *io, lbio_problem_t *problem) {
            return lbio_vip_set(io, &config, problem);
        });
    }

    void remove_vip(uint64_t id)
    {
        call([&](lbio_t *io, lbio_problem_t *problem) { return lbio_vip_remove(io, id, problem); });
    }

    void publish()
    {
        with_opened([](lbio_t *io) { lbio_publish(io); });
    }

    std::vector<uint64_t> vip_ids()
    {
        return with_opened([](lbio_t *io) {
            std::vector<uint64_t> ids(lbio_vip_ids(io, nullptr, 0));
            // Only this class's callers add VIPs; the control thread may have removed some meanwhile.
            uint32_t now = lbio_vip_ids(io, ids.data(), static_cast<uint32_t>(ids.size()));
            ids.resize(std::min<size_t>(ids.size(), now));
            return ids;
        });
    }

    nb::dict vip_status(uint64_t id)
    {
        lbio_vip_status_t status = {};
        std::vector<lbrl_backend_status_t> backends(2 * LBRL_BACKENDS_MAX); // those that drain too
        call([&](lbio_t *io, lbio_problem_t *problem) {
            return lbio_vip_status(io, id, &status, backends.data(),
                                   static_cast<uint32_t>(backends.size()), problem);
        });
        nb::list rows;
        for (uint32_t i = 0; i < std::min<size_t>(status.core.backend_count, backends.size());
             i++) {
            rows.append(to_dict(backends[i]));
        }
        nb::dict out;
        out["id"] = status.core.id;
        out["slots"] = status.core.slots;
        out["removing"] = status.core.removing != 0;
        out["actions_sequence"] = status.core.actions_sequence;
        out["actions_refused"] = status.actions_refused;
        out["actions_error"] =
            status.actions_error == 0 ? "" : lbrl_shm_error_text(status.actions_error);
        out["frames"] = status.frames;
        out["actions"] = status.actions;
        out["backends"] = rows;
        return out;
    }

    nb::dict stats()
    {
        lbio_stats_t stats = {};
        with_opened([&](lbio_t *io) { lbio_stats(io, &stats); });
        nb::dict dropped;
        for (unsigned i = 1; i < LBRL_DROP_COUNT; i++) {
            dropped[lbrl_drop_name(i)] = stats.core.dropped[i];
        }
        nb::dict out;
        out["packets"] = stats.core.packets;
        out["bytes"] = stats.core.bytes;
        out["forwarded"] = stats.core.forwarded;
        out["replied"] = stats.core.replied;
        out["handed_over"] = stats.core.handed_over;
        out["dropped"] = dropped;
        out["flows"] = stats.core.flows;
        out["flow_capacity"] = stats.core.flow_capacity;
        out["half_open"] = stats.core.half_open;
        out["recycled"] = stats.core.flows_recycled;
        out["evicted"] = stats.core.flows_evicted;
        out["vectors"] = stats.vectors;
        out["write_errors"] = stats.write_errors;
        out["heartbeat_us"] = stats.heartbeat_us;
        out["running"] = stats.running;
        out["queue_lost"] = stats.queue_lost;
        out["findings"] = findings_of(stats);
        return out;
    }

    int stalled()
    {
        return with_opened([](const lbio_t *io) { return lbio_stalled(io); });
    }

    nb::dict report() const { return to_dict(report_); }

  private:
    std::shared_mutex mutex_; // of io_: shared by calls, alone at the end
    lbio_t *io_ = nullptr;
    lbrl_attach_report_t report_ = {};
};

const char *core_name(int error)
{
    switch (error) {
    case LBRL_ERR_INVALID:
        return "invalid";
    case LBRL_ERR_MEMORY:
    case LBRL_ERR_EXHAUSTED:
        return "exhausted";
    case LBRL_ERR_CONFLICT:
        return "conflict";
    case LBRL_ERR_IMMUTABLE:
        return "unsupported";
    default:
        return "internal";
    }
}

void raise_failure(const std::exception_ptr &pointer, void *)
{
    try {
        std::rethrow_exception(pointer);
    } catch (const Failure &failure) {
        nb::object error = nb::borrow(dataplane_error)(failure.problem.text);
        error.attr("code") = core_name(failure.problem.core);
        error.attr("errno") = failure.problem.system;
        PyErr_SetObject(dataplane_error, error.ptr());
    }
}

} // namespace

void penstock::register_embedded(nb::module_ &m)
{
    dataplane_error = PyErr_NewExceptionWithDoc("penstock_core.DataplaneError",
                                                "The embedded data plane refused or could not do "
                                                "something; `code` as in the control protocol.",
                                                nullptr, nullptr);
    m.attr("DataplaneError") = nb::borrow(dataplane_error);
    nb::register_exception_translator(raise_failure);

    nb::class_<EmbeddedDataplane>(
        m, "EmbeddedDataplane",
        "Packet and control threads on TUN queues, around one flow arena.\n\n"
        "Addresses are 16 bytes, IPv4 mapped into IPv6.")
        .def(nb::init<const std::string &, const std::string &, const nb::bytes &, uint32_t,
                      uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, std::optional<uint32_t>>(),
             "directory"_a, "instance_id"_a, "boot_id"_a, nb::kw_only(), "flows"_a, "vips"_a,
             "slots"_a, "workers"_a = 1, "interval_ms"_a = 200, "grace_ms"_a = 30000,
             "group"_a = nb::none())
        .def_prop_ro("report", &EmbeddedDataplane::report, "What was found in the arena.")
        .def("start", &EmbeddedDataplane::start, "queues"_a,
             "Start the threads on TUN descriptors, which stay the caller's and must stay open.")
        .def("stop", &EmbeddedDataplane::stop, "End the threads; `start` may follow.")
        .def("close", &EmbeddedDataplane::close,
             "Stop and let go; the objects stay for the next process.")
        .def("withdraw", &EmbeddedDataplane::withdraw,
             "Stop, remove the shared-memory objects, close.")
        .def("set_sources", &EmbeddedDataplane::set_sources, "sources"_a,
             "Set the complete NAT sources: (address, first port, last port).")
        .def("set_node", &EmbeddedDataplane::set_node, "scheduler_key"_a, "nodes"_a,
             "Set what all nodes of a DataPlane share.")
        .def("set_vip", &EmbeddedDataplane::set_vip, "id"_a, nb::kw_only(), "addresses"_a, "port"_a,
             "protocol"_a, "client_affinity"_a, "when_no_backends"_a, "when_no_flow"_a,
             "scheduler"_a, "load"_a, "table_size"_a, "level"_a, "forwarding"_a, "dscp"_a,
             "tunnel_mtu"_a, "timeouts_ms"_a, "drain_ms"_a, "backends"_a,
             "Make a VIP be so, whole or not at all. Backends: (id, address, port, state, weight).")
        .def("remove_vip", &EmbeddedDataplane::remove_vip, "id"_a, "Drain a VIP, then remove it.")
        .def("publish", &EmbeddedDataplane::publish, "Publish a frame of every VIP now.")
        .def("vip_ids", &EmbeddedDataplane::vip_ids, "VIPs in force, those being removed included.")
        .def("vip_status", &EmbeddedDataplane::vip_status, "id"_a, "One VIP and its backends.")
        .def("stats", &EmbeddedDataplane::stats, "Counters since the start.")
        .def("stalled", &EmbeddedDataplane::stalled,
             "-1, or the number of a thread that makes no progress: a packet thread's, or the "
             "number of these for "
             "the control thread. Waits for no lock that such a thread may hold.");
}
