// Writers of shared objects: ActionsWriter is the agent's; FrameWriter writes frames without a data plane, for
// tests and for tools that replay.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "arrays.h"
#include "modules.h"
#include "objects.h"

namespace nb = nanobind;
using namespace nb::literals;
using penstock::Input;
using penstock::Mapping;
using penstock::Object;
using penstock::to_array;
using penstock::Vector;

namespace
{

// Makes an object under a temporary name and gives it its own when it is whole, so that nobody ever opens half
// of one. `format` fills the zeroed memory.
template <typename Format> Mapping replace(const std::string &path, size_t size, Format format)
{
    const std::string temporary = path + ".new." + std::to_string(::getpid());
    ::unlink(temporary.c_str()); // left behind by a process that had the same id
    Mapping mapping = Mapping::create(temporary, size);
    format(mapping.memory(), mapping.size());
    if (std::rename(temporary.c_str(), path.c_str()) != 0) {
        const int code = errno;
        ::unlink(temporary.c_str());
        errno = code;
        penstock::raise_errno(path);
    }
    mapping.renamed(path);
    return mapping;
}

// Tells readers of the object at `path`, if there is one, that it is replaced.
void retire(const std::string &path, uint64_t magic)
{
    if (::access(path.c_str(), W_OK) != 0) {
        return;
    }
    try {
        Mapping old = Mapping::open_existing(path, true);
        lbrl_shm_retire(old.memory(), old.size(), magic);
    } catch (nb::python_error &) { // NOLINT(bugprone-empty-catch)
        // not an object that anybody could have open
    }
}

// ---- Actions ----

void check_length(const char *field, size_t found, size_t slots)
{
    if (found != slots) {
        throw nb::value_error((std::string(field) + ": has " + std::to_string(found) +
                               " entries, give one for each of the " + std::to_string(slots) +
                               " slots")
                                  .c_str());
    }
}

class ActionsWriter
{
  public:
    ActionsWriter(const std::string &path, uint32_t slots) : path_(path)
    {
        const size_t size = lbrl_actions_size(slots);
        if (size == 0) {
            throw nb::value_error("slots: must be from 1 to 4096");
        }
        if (!attach(slots)) {
            retire(path, LBRL_SHM_ACTIONS_MAGIC);
            mapping_ = std::make_unique<Mapping>(replace(path, size, [&](void *memory, size_t n) {
                lbrl_actions_format(&actions_, memory, n, slots, 0);
            }));
        }
    }

    uint64_t write(Input<float> weights, Input<uint8_t> generation, uint64_t time_us,
                   std::optional<Input<float>> base, bool shared)
    {
        check_length("weights", weights.shape(0), actions_.slots);
        check_length("generation", generation.shape(0), actions_.slots);
        if (base) {
            check_length("base", base->shape(0), actions_.slots);
        }
        mapping_->check();
        const auto write = shared ? lbrl_actions_write_shared : lbrl_actions_write;
        return write(&actions_, weights.data(), base ? base->data() : nullptr, generation.data(),
                     time_us);
    }

    void close() { mapping_->close(); }
    const std::string &path() const { return path_; }
    uint32_t slots() const { return actions_.slots; }

  private:
    // Goes on with the object of an earlier agent if it is valid and fits.
    bool attach(uint32_t slots)
    {
        if (::access(path_.c_str(), F_OK) != 0) {
            return false;
        }
        try {
            mapping_ = std::make_unique<Mapping>(Mapping::open_existing(path_, true));
        } catch (nb::python_error &error) {
            if (!error.matches(PyExc_ValueError)) {
                throw; // may not be opened: replacing it would not help
            }
            return false;
        }
        return lbrl_actions_attach(&actions_, mapping_->memory(), mapping_->size(), slots,
                                   nullptr) == LBRL_SHM_OK;
    }

    std::string path_;
    std::unique_ptr<Mapping> mapping_;
    lbrl_actions_t actions_;
};

struct Actions {
    uint64_t sequence, time_us;
    Vector<float> weights;
    Vector<uint8_t> generation;
    std::optional<Vector<float>> base;
    bool shared;
};

class ActionsReader
{
  public:
    explicit ActionsReader(const std::string &path) : object_(path, LBRL_SHM_ACTIONS_MAGIC) {}

    Actions read() const
    {
        const std::vector<uint64_t> copy = object_.read();
        const auto *head = reinterpret_cast<const lbrl_frame_t *>(copy.data());
        return {head->sequence,
                head->time_us,
                object_.column<float>(copy, "weight", LBRL_SHM_F32),
                object_.column<uint8_t>(copy, "generation", LBRL_SHM_U8),
                base_of(copy),
                is_shared(head)};
    }
    const std::string &path() const { return object_.path(); }
    uint32_t slots() const { return object_.header().slots; }
    bool retired() const { return object_.retired(); }
    void close() { object_.close(); }

  private:
    static bool is_shared(const lbrl_frame_t *head)
    {
        return head->base_sequence == ~head->sequence;
    }

    std::optional<Vector<float>> base_of(const std::vector<uint64_t> &copy) const
    {
        const auto *head = reinterpret_cast<const lbrl_frame_t *>(copy.data());
        if ((head->base_sequence != head->sequence && !is_shared(head)) ||
            lbrl_shm_find(object_.view(), LBRL_SHM_IN_FRAME, "base") == nullptr) {
            return std::nullopt;
        }
        return object_.column<float>(copy, "base", LBRL_SHM_F32);
    }

    Object object_;
};

// ---- Frames ----

lbrl_level_t level_by_name(const std::string &name)
{
    for (int i = 0; i < LBRL_LEVEL_COUNT; i++) {
        if (name == lbrl_level_name(static_cast<lbrl_level_t>(i))) {
            return static_cast<lbrl_level_t>(i);
        }
    }
    throw nb::value_error("feature_level: must be off, basic or full");
}

uint32_t counter_by_name(const std::string &name)
{
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        if (name == lbrl_counter_info(static_cast<lbrl_counter_t>(i))->name) {
            return i;
        }
    }
    throw nb::key_error(name.c_str());
}

uint32_t channel_by_name(const std::string &name)
{
    for (uint32_t i = 0; i < LBRL_CHANNEL_COUNT; i++) {
        if (name == lbrl_channel_info(static_cast<lbrl_channel_t>(i))->name) {
            return i;
        }
    }
    throw nb::key_error(name.c_str());
}

class FrameWriter
{
  public:
    FrameWriter(const std::string &path, uint32_t slots, uint32_t workers,
                const std::string &feature_level, const std::string &instance_id, uint64_t time_us)
        : path_(path), changed_us_(time_us)
    {
        const lbrl_frames_config_t config{slots, workers, level_by_name(feature_level),
                                          instance_id.c_str()};
        const size_t size = lbrl_frames_size(&config);
        if (size == 0) {
            throw nb::value_error("slots: must be from 1 to 4096; workers: from 1 to 64; "
                                  "instance_id: at most 39 characters");
        }
        retire(path, LBRL_SHM_FRAMES_MAGIC);
        mapping_ = std::make_unique<Mapping>(replace(path, size, [&](void *memory, size_t n) {
            lbrl_frames_format(&frames_, memory, n, &config, time_us);
        }));
        counters_.resize(size_t{slots} * workers);
        for (uint32_t i = 0; i < workers; i++) {
            lbrl_sink_t sink;
            lbrl_sink_init(&sink, &counters_[size_t{slots} * i], slots, config.level, &frames_, i,
                           i + 1);
            sinks_.push_back(sink);
        }
    }

    void open_slot(uint32_t slot, uint8_t generation)
    {
        lbrl_frames_slot_open(&frames_, checked_slot(slot), generation);
        for (lbrl_sink_t &sink : sinks_) {
            lbrl_sink_slot_reset(&sink, slot);
        }
    }
    void close_slot(uint32_t slot) { lbrl_frames_slot_close(&frames_, checked_slot(slot)); }

    void count(uint32_t slot, const std::string &counter, int64_t amount, uint32_t worker)
    {
        const auto which = static_cast<lbrl_counter_t>(counter_by_name(counter));
        lbrl_sink_t &to = sink(worker);
        if (which == LBRL_COUNTER_N_ACTIVE) {
            lbrl_sink_active(&to, checked_slot(slot), amount, changed_us_);
        } else if (which == LBRL_COUNTER_N_FLOW_ON) {
            lbrl_gauge_add(&to.counters[checked_slot(slot)], LBRL_COUNTER_OPEN_US, amount,
                           changed_us_);
        } else {
            const bool integral = lbrl_counter_is_integral(which);
            lbrl_sink_count(&to, checked_slot(slot), which,
                            integral ? amount * (1 << LBRL_INTEGRAL_SHIFT) : amount);
        }
    }
    void sample(uint32_t slot, const std::string &channel, float value, uint64_t time_us,
                uint32_t worker)
    {
        lbrl_sink_sample(&sink(worker), checked_slot(slot),
                         static_cast<lbrl_channel_t>(channel_by_name(channel)), value, time_us);
    }
    void publish(uint64_t time_us, uint64_t actions_sequence)
    {
        std::vector<const lbrl_sink_t *> sinks;
        for (const lbrl_sink_t &each : sinks_) {
            sinks.push_back(&each);
        }
        lbrl_frames_publish(&frames_, sinks.data(), static_cast<uint32_t>(sinks.size()), nullptr,
                            actions_sequence, time_us);
        changed_us_ = time_us;
    }
    void retire_object() { lbrl_frames_retire(&frames_); }
    const std::string &path() const { return path_; }

  private:
    uint32_t checked_slot(uint32_t slot) const
    {
        if (slot >= frames_.slots) {
            throw nb::index_error("slot: not in this object");
        }
        return slot;
    }
    lbrl_sink_t &sink(uint32_t worker)
    {
        if (worker >= sinks_.size()) {
            throw nb::index_error("worker: not in this object");
        }
        return sinks_[worker];
    }

    std::string path_;
    uint64_t changed_us_; // of changes of gauges: when the last frame was published
    std::unique_ptr<Mapping> mapping_;
    lbrl_frames_t frames_;
    std::vector<lbrl_slot_counters_t> counters_;
    std::vector<lbrl_sink_t> sinks_;
};

void register_actions(nb::module_ &m)
{
    nb::class_<ActionsWriter>(
        m, "ActionsWriter",
        "Writes weights and bases for one VIP. Goes on with the object of an earlier "
        "agent if it fits, else replaces it.")
        .def(nb::init<const std::string &, uint32_t>(), "path"_a, "slots"_a)
        .def(
            "write", &ActionsWriter::write, "weights"_a, "generation"_a, "time_us"_a,
            "base"_a = nb::none(), "shared"_a = false,
            "Publishes a weight and a base per slot, with the generations that they were computed "
            "for; returns the sequence number. A base of 0, or None for all, stands for the data "
            "plane's own. `shared`: bases are added to the flows of all balancers, and used with a "
            "shared view.")
        .def("close", &ActionsWriter::close)
        .def_prop_ro("path", &ActionsWriter::path)
        .def_prop_ro("slots", &ActionsWriter::slots);
    nb::class_<Actions>(m, "Actions", "Weights and bases as an agent published them.")
        .def_ro("sequence", &Actions::sequence)
        .def_ro("time_us", &Actions::time_us)
        .def_ro("weights", &Actions::weights, nb::rv_policy::automatic)
        .def_ro("generation", &Actions::generation, nb::rv_policy::automatic)
        .def_ro("base", &Actions::base, nb::rv_policy::automatic,
                "None where the frame has no bases.")
        .def_ro("shared", &Actions::shared, "Whether they are on the flows of all balancers.");
    nb::class_<ActionsReader>(m, "ActionsReader", "Reads the actions object of one VIP.")
        .def(nb::init<const std::string &>(), "path"_a)
        .def("read", &ActionsReader::read)
        .def("close", &ActionsReader::close)
        .def_prop_ro("path", &ActionsReader::path)
        .def_prop_ro("slots", &ActionsReader::slots)
        .def_prop_ro("retired", &ActionsReader::retired);
}

} // namespace

void penstock::register_writers(nb::module_ &m)
{
    register_actions(m);
    nb::class_<FrameWriter>(
        m, "FrameWriter", "Writes the frames of a VIP without a data plane, for tests and replays.")
        .def(nb::init<const std::string &, uint32_t, uint32_t, const std::string &,
                      const std::string &, uint64_t>(),
             "path"_a, "slots"_a, "workers"_a = 1, "feature_level"_a = "basic",
             "instance_id"_a = "writer", "time_us"_a = 0)
        .def("open_slot", &FrameWriter::open_slot, "slot"_a, "generation"_a)
        .def("close_slot", &FrameWriter::close_slot, "slot"_a)
        .def("count", &FrameWriter::count, "slot"_a, "counter"_a, "amount"_a = 1, "worker"_a = 0)
        .def("sample", &FrameWriter::sample, "slot"_a, "channel"_a, "value"_a, "time_us"_a,
             "worker"_a = 0)
        .def("publish", &FrameWriter::publish, "time_us"_a, "actions_sequence"_a = 0)
        .def("retire", &FrameWriter::retire_object)
        .def_prop_ro("path", &FrameWriter::path);
}
