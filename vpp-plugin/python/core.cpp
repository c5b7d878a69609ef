// The packet path for Python: byte buffers in, verdicts and byte buffers out. Time is an argument, memory is the
// object's own, so tests compare it with plain models.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "lbrl/lbrl.h"
#include "modules.h"
#include "objects.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace
{

using penstock::Mapping;

constexpr size_t alignment = 64;

// What stubs say of dictionaries: keys are names, values as documented.
using Dict = nb::typed<nb::dict, nb::str, nb::any>;

struct FreeMemory {
    void operator()(void *memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<uint8_t, FreeMemory>;

Memory take_memory(size_t size)
{
    void *memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    std::memset(memory, 0, size);
    return Memory(static_cast<uint8_t *>(memory));
}

void check(int error, const char *what)
{
    if (error == LBRL_ERR_MEMORY) {
        throw std::bad_alloc();
    }
    if (error < 0) {
        throw nb::value_error((std::string(what) + ": " + lbrl_error_text(error)).c_str());
    }
}

lbrl_address_t to_address(const nb::bytes &bytes)
{
    lbrl_address_t address = {};
    if (bytes.size() == 4) {
        address.bytes[10] = address.bytes[11] = 0xff;
        std::memcpy(address.bytes + 12, bytes.data(), 4);
    } else if (bytes.size() == 16) {
        std::memcpy(address.bytes, bytes.data(), 16);
    } else {
        throw nb::value_error("address: must have 4 or 16 bytes");
    }
    return address;
}

// 4 bytes for IPv4, 16 for IPv6.
nb::bytes from_address(const lbrl_address_t &address)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    bool v4 = std::memcmp(address.bytes, mapped, sizeof(mapped)) == 0;
    return v4 ? nb::bytes(address.bytes + 12, 4) : nb::bytes(address.bytes, 16);
}

template <size_t N> void copy_exactly(uint8_t (&to)[N], const nb::bytes &from, const char *what)
{
    if (from.size() != N) {
        throw nb::value_error(
            (std::string(what) + ": must have " + std::to_string(N) + " bytes").c_str());
    }
    std::memcpy(to, from.data(), N);
}

// One packet with its offload metadata, before or after processing.
struct Packet {
    std::string data;
    uint16_t headroom = 128;
    uint8_t gso_type = 0;
    uint16_t gso_size = 0;
    uint16_t hdr_len = 0;
    bool needs_csum = false;
    uint16_t csum_start = 0;
    uint16_t csum_offset = 0;
    uint16_t worker = 0;
    uint16_t tunnel = 0;
    uint8_t verdict = LBRL_VERDICT_DROP;
    uint8_t reason = 0;
};

const char *verdict_name(uint8_t verdict)
{
    static const char *const names[] = {"forward", "reply", "drop", "pass", "handover", "hold"};
    return names[verdict];
}

struct Backend {
    lbrl_backend_config_t config = {};
};

struct Flow {
    lbrl_flow_info_t info = {};
};

using Source = std::tuple<nb::bytes, uint16_t, uint16_t>;

class Core
{
  public:
    Core(uint32_t flows, uint32_t vips, uint32_t slots, uint32_t workers, uint64_t now_us,
         const nb::bytes &seed, const nb::bytes &boot_id, const std::optional<nb::bytes> &arena,
         bool holds)
    {
        config_ = {};
        config_.holds = holds;
        config_.flows = flows;
        config_.vips = vips;
        config_.slots = slots;
        config_.workers = workers;
        config_.now_us = now_us;
        copy_exactly(config_.seed, seed, "seed");
        copy_exactly(config_.boot_id, boot_id, "boot_id");
        size_ = lbrl_arena_size(&config_);
        if (size_ == 0) {
            throw nb::value_error("flows, vips, slots: out of range");
        }
        size_t given = arena ? arena->size() : 0;
        memory_ = take_memory(given > size_ ? given : size_);
        if (arena) {
            std::memcpy(memory_.get(), arena->data(), given);
        }
        check(lbrl_open(&lb_, &config_, memory_.get(), arena ? given : size_, &report_), "arena");
    }
    Core(const Core &) = delete;
    Core &operator=(const Core &) = delete;
    ~Core() { lbrl_close(lb_); }

    nb::bytes arena() const { return nb::bytes(memory_.get(), size_); }

    Dict report() const
    {
        static const char *const names[] = {"formatted", "attached", "replaced", "imported"};
        nb::dict out;
        out["status"] = names[report_.status];
        out["vips"] = report_.vips;
        out["flows"] = report_.flows;
        out["flows_dropped"] = report_.flows_dropped;
        out["version"] = report_.version;
        return out;
    }

    void import_arena(const nb::bytes &old, uint64_t now_us)
    {
        Memory copy = take_memory(old.size());
        std::memcpy(copy.get(), old.data(), old.size());
        check(lbrl_import(lb_, copy.get(), old.size(), now_us, &report_), "import");
    }

    void set_sources(const std::vector<Source> &sources)
    {
        std::vector<lbrl_nat_source_t> made;
        for (const auto &[address, first, last] : sources) {
            made.push_back({to_address(address), first, last});
        }
        check(lbrl_sources_set(lb_, made.data(), static_cast<uint32_t>(made.size())), "sources");
    }

    void set_node(const nb::bytes &key, uint32_t nodes)
    {
        uint8_t bytes[16];
        copy_exactly(bytes, key, "key");
        check(lbrl_node_set(lb_, bytes, nodes), "node");
    }

    void set_vip(uint64_t id, const std::vector<nb::bytes> &addresses, uint16_t port,
                 uint8_t protocol, const std::vector<Backend> &backends,
                 const std::string &scheduler, bool client_affinity, uint32_t table_size,
                 uint32_t drain_timeout, const std::vector<uint32_t> &timeouts,
                 uint8_t feature_level, const std::string &forwarding, uint8_t dscp, uint16_t mtu,
                 const std::string &load, bool drop_unserved, bool drop_strangers, uint64_t now_us)
    {
        lbrl_vip_config_t config = {};
        if (addresses.size() > LBRL_ADDRESSES_MAX) {
            throw nb::value_error("addresses: at most 8");
        }
        for (size_t i = 0; i < addresses.size(); i++) {
            config.addresses[i] = to_address(addresses[i]);
        }
        std::vector<lbrl_backend_config_t> made;
        for (const Backend &backend : backends) {
            made.push_back(backend.config);
        }
        config.id = id;
        config.address_count = static_cast<uint32_t>(addresses.size());
        config.port = port;
        config.protocol = protocol;
        config.client_affinity = client_affinity;
        config.when_no_backends = drop_unserved ? LBRL_REFUSE_DROP : LBRL_REFUSE_REJECT;
        config.when_no_flow = drop_strangers ? LBRL_REFUSE_DROP : LBRL_REFUSE_REJECT;
        config.scheduler = scheduler_of(scheduler);
        config.load = load_of(load);
        config.feature_level = feature_level;
        config.forwarding = forwarding_of(forwarding);
        config.dscp = dscp;
        config.mtu = mtu;
        config.table_size = table_size;
        config.timeouts = timeouts_of(timeouts);
        config.drain_timeout = drain_timeout;
        config.backends = made.data();
        config.backend_count = static_cast<uint32_t>(made.size());
        check(lbrl_vip_set(lb_, &config, now_us), "vip");
    }

    void remove_vip(uint64_t id, uint64_t now_us)
    {
        check(lbrl_vip_remove(lb_, id, now_us), "vip");
    }

    void set_weights(uint64_t vip, const std::vector<float> &weights, const nb::bytes &generations,
                     const std::optional<std::vector<float>> &base)
    {
        if (weights.size() != generations.size()) {
            throw nb::value_error("generations: must have as many entries as weights");
        }
        if (base && base->size() != weights.size()) {
            throw nb::value_error("base: must have as many entries as weights");
        }
        check(lbrl_weights_set(lb_, vip, weights.data(), base ? base->data() : nullptr,
                               static_cast<const uint8_t *>(generations.data()),
                               static_cast<uint32_t>(weights.size())),
              "weights");
    }

    void reset_weights(uint64_t vip) { check(lbrl_weights_reset(lb_, vip), "weights"); }

    std::vector<Packet> process(const std::vector<Packet> &packets, uint64_t now_us,
                                uint32_t worker)
    {
        if (packets.size() > LBRL_VECTOR_MAX) {
            throw nb::value_error("packets: at most 256");
        }
        constexpr size_t tailroom = 64;
        std::vector<lbrl_packet_t> vector(packets.size());
        std::vector<std::vector<uint8_t>> buffers(packets.size());
        for (size_t i = 0; i < packets.size(); i++) {
            const Packet &from = packets[i];
            buffers[i].resize(from.headroom + from.data.size() + tailroom);
            std::memcpy(buffers[i].data() + from.headroom, from.data.data(), from.data.size());
            vector[i] = {};
            vector[i].data = buffers[i].data() + from.headroom;
            vector[i].length = static_cast<uint32_t>(from.data.size());
            vector[i].headroom = from.headroom;
            vector[i].tailroom = tailroom;
            vector[i].gso_type = from.gso_type;
            vector[i].gso_size = from.gso_size;
            vector[i].hdr_len = from.hdr_len;
            vector[i].flags = from.needs_csum ? LBRL_PACKET_NEEDS_CSUM : 0;
            vector[i].csum_start = from.csum_start;
            vector[i].csum_offset = from.csum_offset;
        }
        lbrl_process(worker_of(worker), vector.data(), static_cast<uint32_t>(vector.size()),
                     now_us);
        std::vector<Packet> out(packets.size());
        for (size_t i = 0; i < packets.size(); i++) {
            out[i] = result_of(vector[i]);
            if (vector[i].verdict == LBRL_VERDICT_HOLD) {
                held_[vector[i].data] = std::move(buffers[i]);
            }
        }
        return out;
    }

    std::vector<Packet> take_held(uint64_t now_us, uint32_t worker)
    {
        std::vector<Packet> out;
        lbrl_packet_t packet;
        while (lbrl_held_take(worker_of(worker), &packet, 1, now_us) > 0) {
            auto buffer = held_.extract(packet.data);
            lbrl_process(worker_of(worker), &packet, 1, now_us);
            out.push_back(result_of(packet));
        }
        return out;
    }

    static Packet result_of(const lbrl_packet_t &from)
    {
        Packet out;
        out.data.assign(reinterpret_cast<const char *>(from.data), from.length);
        out.headroom = from.headroom;
        out.gso_type = from.gso_type;
        out.gso_size = from.gso_size;
        out.hdr_len = from.hdr_len;
        out.needs_csum = (from.flags & LBRL_PACKET_NEEDS_CSUM) != 0;
        out.csum_start = from.csum_start;
        out.csum_offset = from.csum_offset;
        out.worker = from.worker;
        out.tunnel = from.tunnel;
        out.verdict = from.verdict;
        out.reason = from.reason;
        return out;
    }

    void tick(uint64_t now_us)
    {
        for (uint32_t i = 0; i < config_.workers; i++) {
            lbrl_worker_tick(lbrl_worker(lb_, i), now_us);
        }
        lbrl_control_tick(lb_, now_us);
    }

    void bind_frames(uint64_t vip, const std::string &path, uint8_t level, uint64_t now_us)
    {
        lbrl_vip_status_t status;
        check(lbrl_vip_status(lb_, vip, &status, nullptr, 0), "vip");
        const lbrl_frames_config_t config{status.slots, config_.workers,
                                          static_cast<lbrl_level_t>(level), "core"};
        const size_t size = lbrl_frames_size(&config);
        if (size == 0) {
            throw nb::value_error("level: must be 0, 1 or 2");
        }
        auto bound = std::make_unique<Frames>(Frames{Mapping::create(path, size), {}});
        lbrl_frames_format(&bound->writer, bound->mapping.memory(), size, &config, now_us);
        check(lbrl_frames_bind(lb_, vip, &bound->writer), "frames");
        frames_.push_back(std::move(bound));
    }

    void publish(uint64_t now_us) { lbrl_publish(lb_, now_us); }

    std::vector<Flow> flows(uint64_t now_us) const
    {
        std::vector<Flow> out;
        uint64_t cursor = 0;
        for (Flow flow; lbrl_flow_next(lb_, &cursor, now_us, &flow.info);) {
            out.push_back(flow);
        }
        return out;
    }

    Dict stats() const
    {
        lbrl_stats_t stats;
        lbrl_stats(lb_, &stats);
        nb::dict dropped;
        for (unsigned i = 0; i < LBRL_DROP_COUNT; i++) {
            if (stats.dropped[i]) {
                dropped[lbrl_drop_name(i)] = stats.dropped[i];
            }
        }
        nb::dict out;
        out["packets"] = stats.packets;
        out["bytes"] = stats.bytes;
        out["forwarded"] = stats.forwarded;
        out["replied"] = stats.replied;
        out["passed"] = stats.passed;
        out["handed_over"] = stats.handed_over;
        out["dropped"] = dropped;
        out["flows_created"] = stats.flows_created;
        out["flows_recycled"] = stats.flows_recycled;
        out["flows_evicted"] = stats.flows_evicted;
        out["flows"] = stats.flows;
        out["flow_capacity"] = stats.flow_capacity;
        out["half_open"] = stats.half_open;
        return out;
    }

    Dict vip_status(uint64_t vip) const
    {
        lbrl_vip_status_t status;
        std::vector<lbrl_backend_status_t> found(2 * LBRL_BACKENDS_MAX);
        check(lbrl_vip_status(lb_, vip, &status, found.data(), static_cast<uint32_t>(found.size())),
              "vip");
        nb::list backends;
        for (uint32_t i = 0; i < status.backend_count; i++) {
            backends.append(backend_dict(found[i]));
        }
        nb::dict out;
        out["slots"] = status.slots;
        out["removing"] = status.removing != 0;
        out["unrepresentable"] = status.unrepresentable;
        out["backends"] = backends;
        return out;
    }

    std::vector<uint64_t> vip_ids() const
    {
        std::vector<uint64_t> ids(lbrl_vip_ids(lb_, nullptr, 0));
        lbrl_vip_ids(lb_, ids.data(), static_cast<uint32_t>(ids.size()));
        return ids;
    }

  private:
    static uint8_t scheduler_of(const std::string &name)
    {
        static const std::pair<const char *, uint8_t> known[] = {{"maglev", LBRL_SCHEDULER_MAGLEV},
                                                                 {"sed", LBRL_SCHEDULER_SED},
                                                                 {"lsq", LBRL_SCHEDULER_LSQ},
                                                                 {"alias", LBRL_SCHEDULER_ALIAS},
                                                                 {"p2c", LBRL_SCHEDULER_P2C}};
        for (const auto &[text, value] : known) {
            if (name == text) {
                return value;
            }
        }
        throw nb::value_error("scheduler: must be maglev, sed, lsq, alias or p2c");
    }

    static uint8_t load_of(const std::string &name)
    {
        if (name != "open" && name != "active") {
            throw nb::value_error("load: must be open or active");
        }
        return name == "open" ? LBRL_LOAD_OPEN : LBRL_LOAD_ACTIVE;
    }

    static uint8_t forwarding_of(const std::string &name)
    {
        static const std::pair<const char *, uint8_t> known[] = {
            {"nat", LBRL_FORWARD_NAT}, {"gre", LBRL_FORWARD_GRE}, {"l3dsr", LBRL_FORWARD_L3DSR}};
        for (const auto &[text, value] : known) {
            if (name == text) {
                return value;
            }
        }
        throw nb::value_error("forwarding: must be nat, gre or l3dsr");
    }

    static lbrl_timeouts_t timeouts_of(const std::vector<uint32_t> &ms)
    {
        if (ms.empty()) {
            return lbrl_timeouts_default();
        }
        if (ms.size() != 7) {
            throw nb::value_error("timeouts: must be empty or 7 numbers of milliseconds");
        }
        return {ms[0], ms[1], ms[2], ms[3], ms[4], ms[5], ms[6]};
    }

    static nb::dict backend_dict(const lbrl_backend_status_t &backend)
    {
        static const char *const states[] = {"free", "active", "draining", "failed"};
        nb::dict out;
        out["id"] = backend.id;
        out["address"] = from_address(backend.address);
        out["port"] = backend.port;
        out["slot"] = backend.slot;
        out["state"] = states[backend.state & 3];
        out["generation"] = backend.generation;
        out["removed"] = backend.removed != 0;
        out["weight"] = backend.weight;
        out["base"] = backend.base;
        out["open_flows"] = backend.open_flows;
        out["entries"] = backend.entries;
        out["flows"] = backend.flows;
        out["packets"] = backend.packets;
        out["bytes"] = backend.bytes;
        return out;
    }

    lbrl_worker_t *worker_of(uint32_t index)
    {
        lbrl_worker_t *worker = lbrl_worker(lb_, index);
        if (worker == nullptr) {
            throw nb::value_error("worker: there are not so many");
        }
        return worker;
    }

    struct Frames {
        Mapping mapping;
        lbrl_frames_t writer;
    };

    lbrl_config_t config_;
    std::unordered_map<const uint8_t *, std::vector<uint8_t>> held_;
    Memory memory_;
    std::vector<std::unique_ptr<Frames>>
        frames_; // all that were ever bound: workers may write to them
    size_t size_ = 0;
    lbrl_t *lb_ = nullptr;
    lbrl_attach_report_t report_ = {};
};

uint8_t state_of(const std::string &name)
{
    static const std::pair<const char *, uint8_t> known[] = {{"active", LBRL_BACKEND_ACTIVE},
                                                             {"draining", LBRL_BACKEND_DRAINING},
                                                             {"failed", LBRL_BACKEND_FAILED},
                                                             {"unready", LBRL_BACKEND_UNREADY}};
    for (const auto &[text, value] : known) {
        if (name == text) {
            return value;
        }
    }
    throw nb::value_error("state: must be active, draining, failed or unready");
}

const char *flow_state_name(const Flow &flow)
{
    static const char *const names[] = {"free",         "syn",        "syn_ack",
                                        "established",  "closing",    "udp_new",
                                        "udp_exchange", "udp_stream", "udp_answered"};
    return names[flow.info.state];
}

lbrl_packet_t view_of(const Packet &packet, uint8_t *data)
{
    lbrl_packet_t view = {};
    view.data = data;
    view.length = static_cast<uint32_t>(packet.data.size());
    view.gso_type = packet.gso_type;
    view.gso_size = packet.gso_size;
    view.hdr_len = packet.hdr_len;
    view.csum_start = packet.csum_start;
    view.csum_offset = packet.csum_offset;
    view.tunnel = packet.tunnel;
    return view;
}

std::vector<nb::bytes> segments(const Packet &packet)
{
    if (packet.tunnel == 0) {
        throw nb::value_error("packet: is no super-packet in a tunnel");
    }
    std::string copy = packet.data;
    const lbrl_packet_t view = view_of(packet, reinterpret_cast<uint8_t *>(copy.data()));
    std::vector<uint8_t> out(copy.size());
    std::vector<nb::bytes> found;
    while (uint32_t length = lbrl_segment(&view, static_cast<uint32_t>(found.size()), out.data(),
                                          static_cast<uint32_t>(out.size()))) {
        found.emplace_back(out.data(), length);
    }
    return found;
}

std::optional<nb::bytes> decapsulate(const nb::bytes &data)
{
    std::string copy(data.c_str(), data.size());
    lbrl_packet_t view = {};
    view.data = reinterpret_cast<uint8_t *>(copy.data());
    view.length = static_cast<uint32_t>(copy.size());
    if (lbrl_decapsulate(&view) != 0) {
        return std::nullopt;
    }
    return nb::bytes(view.data, view.length);
}

void register_tunnels(nb::module_ &m)
{
    m.def("segments", &segments, "packet"_a,
          "Return the segments of a super-packet that Core.process() has put into a tunnel.");
    m.def("decapsulate", &decapsulate, "data"_a,
          "Return the packet inside a GRE packet, its ECN field as RFC 6040 says; None if it is "
          "none.");
}

void register_packet(nb::module_ &m)
{
    nb::class_<Packet>(m, "Packet",
                       "An IP packet with offload metadata; after Core.process() also its verdict.")
        .def(
            "__init__",
            [](Packet *self, const nb::bytes &data, uint16_t headroom, uint8_t gso_type,
               uint16_t gso_size, uint16_t hdr_len, bool needs_csum, uint16_t csum_start,
               uint16_t csum_offset) {
                new (self) Packet{std::string(data.c_str(), data.size()),
                                  headroom,
                                  gso_type,
                                  gso_size,
                                  hdr_len,
                                  needs_csum,
                                  csum_start,
                                  csum_offset};
            },
            "data"_a, "headroom"_a = 128, "gso_type"_a = 0, "gso_size"_a = 0, "hdr_len"_a = 0,
            "needs_csum"_a = false, "csum_start"_a = 0, "csum_offset"_a = 0)
        .def_prop_ro("data",
                     [](const Packet &p) { return nb::bytes(p.data.data(), p.data.size()); })
        .def_ro("headroom", &Packet::headroom)
        .def_ro("gso_type", &Packet::gso_type)
        .def_ro("gso_size", &Packet::gso_size)
        .def_ro("hdr_len", &Packet::hdr_len)
        .def_ro("needs_csum", &Packet::needs_csum)
        .def_ro("csum_start", &Packet::csum_start)
        .def_ro("csum_offset", &Packet::csum_offset)
        .def_ro("tunnel", &Packet::tunnel, "bytes of outer headers in front of a super-packet")
        .def_ro("worker", &Packet::worker, "owner, when the verdict is handover")
        .def_prop_ro("verdict", [](const Packet &p) { return verdict_name(p.verdict); })
        .def_prop_ro("reason", [](const Packet &p) { return lbrl_drop_name(p.reason); });
}

void register_values(nb::module_ &m)
{
    nb::class_<Backend>(m, "Backend", "One server behind a VIP, as configured.")
        .def(
            "__init__",
            [](Backend *self, uint64_t id, const nb::bytes &address, uint16_t port,
               const std::string &state, float weight) {
                lbrl_backend_config_t config = {id, to_address(address), port, state_of(state),
                                                weight};
                new (self) Backend{config};
            },
            "id"_a, "address"_a, "port"_a, "state"_a = "active", "weight"_a = 1.0f);
    nb::class_<Flow>(m, "Flow", "One entry of the flow table.")
        .def_prop_ro("client", [](const Flow &f) { return from_address(f.info.client); })
        .def_prop_ro("vip", [](const Flow &f) { return from_address(f.info.vip); })
        .def_prop_ro("backend", [](const Flow &f) { return from_address(f.info.backend); })
        .def_prop_ro("source", [](const Flow &f) { return from_address(f.info.source); })
        .def_prop_ro("client_port", [](const Flow &f) { return f.info.client_port; })
        .def_prop_ro("vip_port", [](const Flow &f) { return f.info.vip_port; })
        .def_prop_ro("backend_port", [](const Flow &f) { return f.info.backend_port; })
        .def_prop_ro("nat_port", [](const Flow &f) { return f.info.nat_port; })
        .def_prop_ro("vip_id", [](const Flow &f) { return f.info.vip_id; })
        .def_prop_ro("slot", [](const Flow &f) { return f.info.slot; })
        .def_prop_ro("partition", [](const Flow &f) { return f.info.partition; })
        .def_prop_ro("protocol", [](const Flow &f) { return f.info.protocol; })
        .def_prop_ro("state", &flow_state_name)
        .def_prop_ro("open", [](const Flow &f) { return f.info.open != 0; })
        .def_prop_ro("idle_ms", [](const Flow &f) { return f.info.idle_ms; });
}

} // namespace

namespace penstock
{

void register_core(nb::module_ &m)
{
    register_packet(m);
    register_tunnels(m);
    register_values(m);
    nb::class_<Core>(
        m, "Core",
        "A load balancer on memory of its own. Times are CLOCK_BOOTTIME in microseconds.")
        .def(nb::init<uint32_t, uint32_t, uint32_t, uint32_t, uint64_t, const nb::bytes &,
                      const nb::bytes &, const std::optional<nb::bytes> &, bool>(),
             "flows"_a = 4096, "vips"_a = 64, "slots"_a = 1024, "workers"_a = 1, nb::kw_only(),
             "now_us"_a = 1000000, "seed"_a, "boot_id"_a = nb::bytes("0123456789abcdef", 16),
             "arena"_a.none() = nb::none(), "holds"_a = false)
        .def("arena", &Core::arena, "A copy of the arena, as a killed process would leave it.")
        .def_prop_ro(
            "report", &Core::report,
            "What was found in the arena: status, vips, flows, flows_dropped, version (0: none).")
        .def("import_arena", &Core::import_arena, "old"_a, "now_us"_a)
        .def("set_sources", &Core::set_sources, "sources"_a,
             "Complete set of (address, first port, last port).")
        .def("set_node", &Core::set_node, "key"_a, "nodes"_a)
        .def("set_vip", &Core::set_vip, "id"_a, "addresses"_a, "port"_a, "protocol"_a, "backends"_a,
             "scheduler"_a = "lsq", "client_affinity"_a = false, "table_size"_a = 251,
             "drain_timeout"_a = 300000, "timeouts"_a = std::vector<uint32_t>(),
             "feature_level"_a = 0, nb::kw_only(), "forwarding"_a = "nat", "dscp"_a = 0,
             "mtu"_a = 0, "load"_a = "open", "drop_unserved"_a = false, "drop_strangers"_a = false,
             "now_us"_a)
        .def("remove_vip", &Core::remove_vip, "id"_a, "now_us"_a)
        .def("set_weights", &Core::set_weights, "vip"_a, "weights"_a, "generations"_a,
             "base"_a = nb::none())
        .def("reset_weights", &Core::reset_weights, "vip"_a)
        .def("process", &Core::process, "packets"_a, "now_us"_a, "worker"_a = 0,
             "Processes up to 256 packets; returns each one as it became, with its verdict.")
        .def("take_held", &Core::take_held, "now_us"_a, "worker"_a = 0,
             "Processes fragments that need not wait for their first any longer (holds=True).")
        .def("tick", &Core::tick, "now_us"_a,
             "Ageing of all workers and the control side's housekeeping.")
        .def("bind_frames", &Core::bind_frames, "vip"_a, "path"_a, "level"_a, nb::kw_only(),
             "now_us"_a,
             "Makes a frames object at a path that does not exist and records the VIP into it.")
        .def("publish", &Core::publish, "now_us"_a, "Writes a frame of every VIP with frames.")
        .def("flows", &Core::flows, "now_us"_a)
        .def("stats", &Core::stats)
        .def("vip_status", &Core::vip_status, "vip"_a)
        .def("vip_ids", &Core::vip_ids);
}

} // namespace penstock
