#include "scenarios.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <array>

namespace penstock
{
namespace
{

using Table = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;

[[noreturn]] void refuse(const std::string &place, const std::string &what)
{
    throw nb::value_error((place + ": " + what).c_str());
}

// An array of doubles of anything that numpy takes for one; kept for as long as `kept` is.
Table to_table(const nb::handle &value, const std::string &place, std::vector<nb::object> &kept)
{
    try {
        nb::object numpy = nb::module_::import_("numpy");
        kept.push_back(numpy.attr("ascontiguousarray")(value, numpy.attr("float64")));
        return nb::cast<Table>(kept.back());
    } catch (const nb::python_error &) {
        refuse(place, "is no array of numbers; must be one");
    }
}

sim_table_t to_rows(const nb::handle &value, const std::string &place, size_t columns,
                    std::vector<nb::object> &kept)
{
    Table table = to_table(value, place, kept);
    if (table.size() == 0) {
        return {nullptr, 0};
    }
    if (table.ndim() != 2 || table.shape(1) != columns) {
        refuse(place, "has another shape; must be an array of rows of " + std::to_string(columns) +
                          " columns");
    }
    return {table.data(), table.shape(0)};
}

struct TableOf {
    const char *key;
    size_t columns;
    sim_table_t sim_environment_t::*member;
};

constexpr std::array<TableOf, 5> tables = {{
    {"servers", SIM_SERVER_COLUMNS, &sim_environment_t::servers},
    {"classes", SIM_CLASS_COLUMNS, &sim_environment_t::classes},
    {"rates", SIM_RATE_COLUMNS, &sim_environment_t::rates},
    {"trace", SIM_TRACE_COLUMNS, &sim_environment_t::trace},
    {"events", SIM_EVENT_COLUMNS, &sim_environment_t::events},
}};

void set_split(sim_environment_t &to, const nb::handle &value, const std::string &place,
               std::vector<nb::object> &kept)
{
    Table split = to_table(value, place, kept);
    if (split.ndim() != 1) {
        refuse(place, "has another shape; must be a row of shares");
    }
    to.split = split.data();
    to.split_count = split.shape(0);
}

template <typename T>
T to_number(const nb::handle &value, const std::string &place, const char *what)
{
    T number;
    if (!nb::try_cast<T>(value, number)) {
        refuse(place, std::string("is no such number; must be ") + what);
    }
    return number;
}

void set(sim_environment_t &to, const std::string &key, const nb::handle &value,
         const std::string &environment, std::vector<nb::object> &kept)
{
    const std::string place = environment + "." + key;
    for (const TableOf &table : tables) {
        if (key == table.key) {
            to.*table.member = to_rows(value, place, table.columns, kept);
            return;
        }
    }
    if (key == "seed") {
        to.seed = to_number<uint64_t>(value, place, "a whole number from 0 to 2^64 - 1");
    } else if (key == "warmup") {
        to.warmup = to_number<double>(value, place, "a number of seconds");
    } else if (key == "split") {
        set_split(to, value, place, kept);
    } else {
        refuse(place, "is unknown; keys are seed, warmup, split, servers, classes, rates, trace, "
                      "events");
    }
}

sim_environment_t to_environment(const nb::handle &value, const std::string &place,
                                 std::vector<nb::object> &kept)
{
    sim_environment_t environment = {};
    if (!PyMapping_Check(value.ptr())) {
        refuse(place, "is no mapping; must be one of keys and arrays");
    }
    nb::object pairs = nb::module_::import_("builtins").attr("dict")(value);
    for (auto [key, item] : nb::cast<nb::dict>(pairs)) {
        std::string name;
        if (!nb::try_cast<std::string>(key, name)) {
            refuse(place, "has a key that is no string");
        }
        set(environment, name, item, place, kept);
    }
    return environment;
}

} // namespace

Scenarios to_scenarios(const nb::sequence &environments)
{
    Scenarios scenarios;
    size_t count = nb::len(environments);
    if (count > SIM_ENVIRONMENTS_MAX) {
        refuse("environments", "are " + std::to_string(count) + "; must be 1 to " +
                                   std::to_string(SIM_ENVIRONMENTS_MAX));
    }
    for (size_t i = 0; i < count; i++) {
        std::string place = "environments[" + std::to_string(i) + "]";
        scenarios.environments.push_back(to_environment(environments[i], place, scenarios.arrays));
    }
    return scenarios;
}

} // namespace penstock
