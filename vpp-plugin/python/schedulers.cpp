// Schedulers for Python: tests compare them with plain models, the operator's tools show shares.
#include <optional>
#include <string>
#include <vector>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "lbrl/scheduler.h"
#include "modules.h"

namespace nb = nanobind;
using namespace nb::literals;
using penstock::Input;
using penstock::to_array;
using penstock::Vector;

namespace
{

[[noreturn]] void raise_maglev(int code)
{
    switch (code) {
    case LBRL_MAGLEV_INVALID_SIZE:
        throw nb::value_error(("size: must be a prime from 3 to " +
                               std::to_string(LBRL_MAGLEV_SIZE_MAX) + ", for example 65537")
                                  .c_str());
    case LBRL_MAGLEV_INVALID_WEIGHT:
        throw nb::value_error("weights: must be numbers from 0 to 1e30");
    case LBRL_MAGLEV_DUPLICATE_ID:
        throw nb::value_error("ids: each may appear once");
    default:
        throw std::bad_alloc();
    }
}

std::vector<lbrl_maglev_backend_t> backends_of(const std::vector<uint64_t> &ids,
                                               const std::vector<double> &weights)
{
    if (ids.size() != weights.size()) {
        throw nb::value_error("weights: must have as many entries as ids");
    }
    std::vector<lbrl_maglev_backend_t> backends(ids.size());
    for (size_t i = 0; i < ids.size(); i++) {
        backends[i] = {ids[i], weights[i], static_cast<uint32_t>(i)};
    }
    return backends;
}

Vector<uint32_t> maglev_table(const std::vector<uint64_t> &ids, const std::vector<double> &weights,
                              uint32_t size, nb::bytes key)
{
    if (key.size() != 16) {
        throw nb::value_error("key: must have 16 bytes");
    }
    const auto backends = backends_of(ids, weights);
    auto table = std::make_unique<uint32_t[]>(size);
    int code = lbrl_maglev_build(table.get(), size, backends.data(),
                                 static_cast<uint32_t>(backends.size()),
                                 static_cast<const uint8_t *>(key.data()));
    if (code < 0) {
        raise_maglev(code);
    }
    return to_array<Vector<uint32_t>>(std::move(table), {size});
}

Vector<uint32_t> maglev_quotas(const std::vector<uint64_t> &ids, const std::vector<double> &weights,
                               uint32_t size)
{
    const auto backends = backends_of(ids, weights);
    auto quotas = std::make_unique<uint32_t[]>(ids.size());
    int code = lbrl_maglev_quotas(quotas.get(), size, backends.data(),
                                  static_cast<uint32_t>(backends.size()));
    if (code < 0) {
        raise_maglev(code);
    }
    return to_array<Vector<uint32_t>>(std::move(quotas), {ids.size()});
}

class Picker
{
  public:
    Picker(const std::string &kind, Input<float> weights, Input<bool> eligible, float common_base,
           std::optional<Input<float>> base)
        : slots_(static_cast<uint32_t>(weights.shape(0)))
    {
        const lbrl_picker_kind_t native = kind_of(kind);
        if (eligible.shape(0) != slots_) {
            throw nb::value_error("eligible: must have as many entries as weights");
        }
        if (!(common_base > 0.0f)) {
            throw nb::value_error("common_base: must be positive");
        }
        if (base && base->shape(0) != slots_) {
            throw nb::value_error("base: must have as many entries as weights");
        }
        std::vector<uint64_t> bits(slots_ / 64 + 1);
        for (uint32_t slot = 0; slot < slots_; slot++) {
            bits[slot / 64] |= static_cast<uint64_t>(eligible.data()[slot]) << slot % 64;
        }
        memory_.resize(lbrl_picker_size(slots_) / sizeof(double) + 1);
        picker_ =
            lbrl_picker_build(memory_.data(), native, weights.data(), base ? base->data() : nullptr,
                              bits.data(), slots_, common_base);
    }

    nb::object pick(Input<int32_t> load, uint64_t random) const
    {
        if (load.shape(0) != slots_) {
            throw nb::value_error("load: must have an entry per slot");
        }
        const uint32_t slot = lbrl_pick(picker_, load.data(), random);
        return slot == LBRL_NO_SLOT ? nb::none() : nb::object(nb::int_(slot));
    }

  private:
    static lbrl_picker_kind_t kind_of(const std::string &name)
    {
        static const std::pair<const char *, lbrl_picker_kind_t> known[] = {
            {"sed", LBRL_PICKER_SED},
            {"lsq", LBRL_PICKER_LSQ},
            {"alias", LBRL_PICKER_ALIAS},
            {"p2c", LBRL_PICKER_P2C}};
        for (const auto &[text, value] : known) {
            if (name == text) {
                return value;
            }
        }
        throw nb::value_error("kind: must be sed, lsq, alias or p2c");
    }

    uint32_t slots_;
    std::vector<double> memory_;
    const lbrl_picker_t *picker_;
};

} // namespace

void penstock::register_schedulers(nb::module_ &m)
{
    m.attr("NO_SLOT") = LBRL_NO_SLOT;
    m.def("maglev_table", &maglev_table, "ids"_a, "weights"_a, "size"_a, "key"_a,
          "Weighted consistent hashing: the index into `ids` for each of `size` positions (a "
          "prime); NO_SLOT "
          "everywhere when no weight is positive.");
    m.def("maglev_quotas", &maglev_quotas, "ids"_a, "weights"_a, "size"_a,
          "Positions of each id in such a table; 0 with a positive weight: the table is too small "
          "for it.");
    nb::class_<Picker>(
        m, "Picker",
        "Shortest expected delay (sed), least loaded (lsq), weighted random (alias) or "
        "the better of two such draws (p2c), over local counts.")
        .def(nb::init<const std::string &, Input<float>, Input<bool>, float,
                      std::optional<Input<float>>>(),
             "kind"_a, "weights"_a, "eligible"_a, "common_base"_a, "base"_a = nb::none())
        .def("pick", &Picker::pick, "load"_a, "random"_a,
             nb::sig("def pick(self, load: typing.Annotated[numpy.typing.NDArray[numpy.int32], "
                     "dict(shape=(None,), order='C', device='cpu')], random: int) -> int | None"),
             "The slot for a new flow; `random` breaks ties.");
}
