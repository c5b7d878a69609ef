// Features, frames and reductions for Python: what the agent and `penstock top` read.
#include <cmath>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "lbrl/reduce.h"
#include "modules.h"
#include "objects.h"

namespace nb = nanobind;
using namespace nb::literals;
using penstock::Input;
using penstock::Matrix;
using penstock::Object;
using penstock::raise_shm;
using penstock::to_array;
using penstock::Vector;

namespace
{

uint64_t boottime_us()
{
    timespec now;
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000u +
           static_cast<uint64_t>(now.tv_nsec) / 1000u;
}

// ---- Frames ----

struct Frame {
    uint64_t sequence, time_us, actions_sequence;
    Vector<bool> active;
    Vector<uint8_t> generation;
    std::optional<Vector<int64_t>> peers;
    nb::dict counters;
};

class FrameReader
{
  public:
    explicit FrameReader(const std::string &path) : object_(path, LBRL_SHM_FRAMES_MAGIC) {}

    uint32_t slots() const { return object_.header().slots; }
    uint32_t workers() const { return object_.header().workers; }
    std::string path() const { return object_.path(); }
    std::string instance_id() const { return object_.header().instance_id; }
    std::string feature_level() const
    {
        return lbrl_level_name(static_cast<lbrl_level_t>(object_.header().level));
    }
    bool retired() const { return object_.retired(); }
    uint64_t heartbeat_us() const { return lbrl_shm_heartbeat(object_.view()); }
    void close() { object_.close(); }

    nb::tuple channels() const
    {
        nb::list names;
        const lbrl_shm_view_t *view = object_.view();
        for (uint32_t i = 0; i < view->header.fields; i++) {
            const lbrl_shm_field_t &field = view->fields[i];
            if (field.place == LBRL_SHM_IN_WORKER && field.type == LBRL_SHM_SAMPLE) {
                names.append(field.name);
            }
        }
        return nb::tuple(names);
    }

    Frame read() const
    {
        const std::vector<uint64_t> copy = object_.read();
        const auto *head = reinterpret_cast<const lbrl_frame_t *>(copy.data());
        Frame frame{head->sequence,
                    head->time_us,
                    head->actions_sequence,
                    object_.bits(copy, "active"),
                    object_.column<uint8_t>(copy, "generation", LBRL_SHM_U8),
                    peers_of(copy),
                    nb::dict()};
        const lbrl_shm_view_t *view = object_.view();
        for (uint32_t i = 0; i < view->header.fields; i++) {
            const lbrl_shm_field_t &field = view->fields[i];
            if (field.place == LBRL_SHM_IN_FRAME && field.type == LBRL_SHM_I64 &&
                std::strcmp(field.name, LBRL_SHM_PEERS) != 0) {
                frame.counters[field.name] =
                    object_.column<int64_t>(copy, field.name, LBRL_SHM_I64);
            }
        }
        return frame;
    }

    // Data planes that share no view may have no such column.
    std::optional<Vector<int64_t>> peers_of(const std::vector<uint64_t> &copy) const
    {
        if (lbrl_shm_find(object_.view(), LBRL_SHM_IN_FRAME, LBRL_SHM_PEERS) == nullptr) {
            return std::nullopt;
        }
        return object_.column<int64_t>(copy, LBRL_SHM_PEERS, LBRL_SHM_I64);
    }

    std::tuple<Matrix<float>, Matrix<float>, Matrix<bool>, Matrix<uint64_t>>
    samples(const std::string &channel, std::optional<uint64_t> now_us) const
    {
        const size_t n = slots(), w = workers(), per_slot = w * LBRL_RESERVOIR_WORDS;
        const lbrl_shm_view_t *view = object_.view();
        const auto *words = object_.field(LBRL_SHM_IN_WORKER, channel, LBRL_SHM_SAMPLE,
                                          slots() * LBRL_RESERVOIR_WORDS);
        const auto *taken =
            object_.field(LBRL_SHM_IN_WORKER, channel + ".seen", LBRL_SHM_U64, slots());
        const auto *live = object_.field(LBRL_SHM_IN_HEADER, "generation", LBRL_SHM_U8, slots());
        const uint32_t now = lbrl_sample_ticks(now_us.value_or(boottime_us()));

        auto values = std::make_unique<float[]>(n * per_slot);
        auto ages = std::make_unique<float[]>(n * per_slot);
        auto valid = std::make_unique<bool[]>(n * per_slot);
        auto seen = std::make_unique<uint64_t[]>(n * w);
        std::vector<uint8_t> generation(n);
        std::vector<uint64_t> copy(n * LBRL_RESERVOIR_WORDS), counts(n);
        lbrl_read_live(view, live, 0, 0, slots(), generation.data());
        for (uint32_t worker = 0; worker < w; worker++) {
            lbrl_read_live(view, taken, worker, 0, slots(), counts.data());
            lbrl_read_live(view, words, worker, 0, words->count, copy.data());
            for (size_t slot = 0; slot < n; slot++) {
                seen[slot * w + worker] = counts[slot];
                for (size_t i = 0; i < LBRL_RESERVOIR_WORDS; i++) {
                    const uint64_t word = copy[slot * LBRL_RESERVOIR_WORDS + i];
                    const size_t at = slot * per_slot + worker * LBRL_RESERVOIR_WORDS + i;
                    values[at] = lbrl_sample_value(word);
                    ages[at] = static_cast<float>(lbrl_sample_age_ticks(word, now)) /
                               LBRL_SAMPLE_TICKS_PER_SECOND;
                    valid[at] = lbrl_sample_valid(word, generation[slot], now);
                }
            }
        }
        return {to_array<Matrix<float>>(std::move(values), {n, per_slot}),
                to_array<Matrix<float>>(std::move(ages), {n, per_slot}),
                to_array<Matrix<bool>>(std::move(valid), {n, per_slot}),
                to_array<Matrix<uint64_t>>(std::move(seen), {n, w})};
    }

    std::map<std::string, Matrix<double>> reduce(const std::vector<std::string> &channels,
                                                 uint64_t now_us)
    {
        const lbrl_shm_view_t *view = object_.view();
        if (scratch_.empty()) {
            scratch_.resize(lbrl_reduce_scratch(view) / sizeof(uint64_t) + 1);
        }
        static_assert(sizeof(lbrl_reduction_t) == 5 * sizeof(double), "five columns");
        std::vector<std::unique_ptr<double[]>> out;
        std::vector<lbrl_channel_reduction_t> wanted;
        for (const std::string &channel : channels) {
            out.push_back(std::make_unique<double[]>(slots() * size_t{5}));
            std::vector<lbrl_reduced_t> &cache = cache_[channel];
            cache.resize(slots());
            wanted.push_back({channel.c_str(), cache.data(),
                              reinterpret_cast<lbrl_reduction_t *>(out.back().get())});
        }
        int code = lbrl_reduce_channels(view, wanted.data(), static_cast<uint32_t>(wanted.size()),
                                        now_us, scratch_.data());
        if (code) {
            raise_shm(code, path() + ": not all of these channels are sampled at level " +
                                feature_level() + ": " + join(channels) +
                                "; use those of FrameReader.channels, each once");
        }
        std::map<std::string, Matrix<double>> reduced;
        for (size_t i = 0; i < channels.size(); i++) {
            reduced.emplace(channels[i], to_array<Matrix<double>>(std::move(out[i]), {slots(), 5}));
        }
        return reduced;
    }

  private:
    static std::string join(const std::vector<std::string> &words)
    {
        std::string joined;
        for (const std::string &word : words) {
            joined += (joined.empty() ? "" : ", ") + word;
        }
        return joined;
    }

    Object object_;
    std::vector<uint64_t> scratch_;
    std::unordered_map<std::string, std::vector<lbrl_reduced_t>> cache_; // by channel
};

Vector<double> reduce_samples(Input<float> values, Input<float> age_seconds,
                              std::optional<Input<float>> weights)
{
    const size_t n = values.shape(0);
    if (age_seconds.shape(0) != n || (weights && weights->shape(0) != n)) {
        throw nb::value_error("age_seconds, weights: must have as many entries as values");
    }
    std::vector<float> value(values.data(), values.data() + n), weight(n, 1.0f);
    std::vector<uint32_t> age_ticks(n);
    for (size_t i = 0; i < n; i++) {
        const float ticks = age_seconds.data()[i] * LBRL_SAMPLE_TICKS_PER_SECOND;
        const float limit = LBRL_SAMPLE_MAX_AGE_SECONDS * LBRL_SAMPLE_TICKS_PER_SECOND;
        if (!(ticks >= 0.0f && ticks <= limit)) {
            throw nb::value_error("age_seconds: must be from 0 to 3600");
        }
        age_ticks[i] = static_cast<uint32_t>(std::lround(ticks));
        weight[i] = weights ? weights->data()[i] : 1.0f;
        if (!(weight[i] > 0.0f) || !std::isfinite(weight[i])) {
            throw nb::value_error("weights: must be positive numbers");
        }
    }
    const lbrl_samples_t samples{value.data(), weight.data(), age_ticks.data()};
    lbrl_decay_t decay;
    lbrl_decay_init(&decay);
    std::vector<lbrl_weighted_t> scratch(LBRL_REDUCE_SCRATCH * n);
    auto out = std::make_unique<double[]>(5);
    lbrl_reduce_samples(&decay, &samples, static_cast<uint32_t>(n), scratch.data(), nullptr,
                        reinterpret_cast<lbrl_reduction_t *>(out.get()));
    return to_array<Vector<double>>(std::move(out), {5});
}

// ---- Definition table ----

nb::object level_or_none(lbrl_level_t level)
{
    const char *name = lbrl_level_name(level);
    return name ? nb::object(nb::str(name)) : nb::none();
}

template <typename Row, typename Index, typename Find> nb::tuple table(Index count, Find find)
{
    nb::list rows;
    for (uint32_t i = 0; i < static_cast<uint32_t>(count); i++) {
        rows.append(nb::cast(*find(static_cast<Index>(i)), nb::rv_policy::copy));
    }
    return nb::tuple(rows);
}

uint32_t features_of(lbrl_level_t level)
{
    uint32_t count = 5 * lbrl_level_channels(level);
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        count += lbrl_counter_info(static_cast<lbrl_counter_t>(i))->observed <= level;
    }
    return count;
}

void register_table(nb::module_ &m)
{
    nb::class_<lbrl_counter_row_t>(m, "Counter", "A counter of the definition table.")
        .def_ro("name", &lbrl_counter_row_t::name)
        .def_prop_ro(
            "recorded", [](const lbrl_counter_row_t &row) { return lbrl_level_name(row.recorded); },
            "Level from which on it is recorded.")
        .def_prop_ro(
            "observed", [](const lbrl_counter_row_t &row) { return level_or_none(row.observed); },
            nb::sig("def observed(self) -> str | None"),
            "Level from which on it is a feature; None outside of the 73.")
        .def_ro("kind", &lbrl_counter_row_t::kind, "total or gauge")
        .def_ro("unit", &lbrl_counter_row_t::unit)
        .def_ro("event", &lbrl_counter_row_t::event)
        .def_ro("condition", &lbrl_counter_row_t::condition)
        .def_ro("one_way", &lbrl_counter_row_t::one_way)
        .def_ro("two_way", &lbrl_counter_row_t::two_way)
        .def_ro("offload", &lbrl_counter_row_t::offload)
        .def_ro("udp", &lbrl_counter_row_t::udp);
    nb::class_<lbrl_channel_row_t>(m, "Channel", "A channel of the definition table.")
        .def_ro("name", &lbrl_channel_row_t::name)
        .def_prop_ro("level",
                     [](const lbrl_channel_row_t &row) { return lbrl_level_name(row.level); })
        .def_ro("unit", &lbrl_channel_row_t::unit)
        .def_ro("event", &lbrl_channel_row_t::event)
        .def_ro("value", &lbrl_channel_row_t::value)
        .def_ro("condition", &lbrl_channel_row_t::condition)
        .def_ro("one_way", &lbrl_channel_row_t::one_way)
        .def_ro("two_way", &lbrl_channel_row_t::two_way)
        .def_ro("offload", &lbrl_channel_row_t::offload)
        .def_ro("udp", &lbrl_channel_row_t::udp);
    m.attr("COUNTERS") = table<lbrl_counter_row_t>(LBRL_COUNTER_COUNT, lbrl_counter_info);
    m.attr("CHANNELS") = table<lbrl_channel_row_t>(LBRL_CHANNEL_COUNT, lbrl_channel_info);
    nb::dict levels;
    for (uint32_t i = 0; i < LBRL_LEVEL_COUNT; i++) {
        auto level = static_cast<lbrl_level_t>(i);
        levels[lbrl_level_name(level)] = features_of(level);
    }
    m.attr("LEVELS") = levels;
    m.attr("REDUCTIONS") = nb::make_tuple("avg", "std", "p90", "avg_decay", "p90_decay");
}

void register_reader(nb::module_ &m)
{
    nb::class_<Frame>(m, "Frame",
                      "A consistent snapshot of a VIP's counters; arrays have an entry per slot.")
        .def_ro("sequence", &Frame::sequence)
        .def_ro("time_us", &Frame::time_us, "CLOCK_BOOTTIME in microseconds.")
        .def_ro("actions_sequence", &Frame::actions_sequence,
                "Of the weights in force; 0 for none.")
        .def_ro("active", &Frame::active, nb::rv_policy::automatic, "Slots that have a backend.")
        .def_ro("generation", &Frame::generation, nb::rv_policy::automatic,
                "Changes when a slot gets another backend.")
        .def_ro("peers", &Frame::peers, nb::rv_policy::automatic,
                "Flows of the other balancers; -1, or None for all, without a shared view.")
        .def_ro("counters", &Frame::counters,
                nb::sig("def counters(self) -> dict[str, "
                        "typing.Annotated[numpy.typing.NDArray[numpy.int64], "
                        "dict(shape=(None,))]]"),
                "By name, see COUNTERS; those that are recorded at the object's level.");
    nb::class_<FrameReader>(m, "FrameReader",
                            "Reads the frames object of one VIP; raises ShmError.")
        .def(nb::init<const std::string &>(), "path"_a)
        .def("read", &FrameReader::read, "Copies the newest consistent frame.")
        .def("samples", &FrameReader::samples, "channel"_a, "now_us"_a = nb::none(),
             "Live reservoirs: values, age in seconds and validity [slot, sample], samples seen "
             "[slot, worker].")
        .def("reduce", &FrameReader::reduce, "channels"_a, "now_us"_a,
             "By channel its REDUCTIONS [slot, 5]; not-a-number where a slot has no sample. All at "
             "once cost less than one by one.")
        .def("close", &FrameReader::close, "Unmaps the object; later calls raise ShmError.")
        .def_prop_ro("path", &FrameReader::path)
        .def_prop_ro("slots", &FrameReader::slots)
        .def_prop_ro("workers", &FrameReader::workers)
        .def_prop_ro("feature_level", &FrameReader::feature_level)
        .def_prop_ro("instance_id", &FrameReader::instance_id)
        .def_prop_ro("channels", &FrameReader::channels,
                     nb::sig("def channels(self) -> tuple[str, ...]"),
                     "Channels that this object has.")
        .def_prop_ro("retired", &FrameReader::retired, "Another object has this one's name now.")
        .def_prop_ro("heartbeat_us", &FrameReader::heartbeat_us,
                     "CLOCK_BOOTTIME of the data plane's last sign of life.");
}

} // namespace

void penstock::register_statistics(nb::module_ &m)
{
    register_errors(m);
    register_table(m);
    register_reader(m);
    m.def("boottime_us", &boottime_us, "CLOCK_BOOTTIME in microseconds, the clock of all objects.");
    m.def("reduce_samples", &reduce_samples, "values"_a, "age_seconds"_a, "weights"_a = nb::none(),
          "REDUCTIONS of samples in arrays, as FrameReader.reduce does it for each slot.");
}
