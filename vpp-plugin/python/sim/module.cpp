// The simulator for Python. Arrays are views of the simulator's own memory, read-only; they stay where they are.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lbrl/lbrl.h"
#include "lbrl/reduce.h"
#include "lbsim/sim.h"
#include "scenarios.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace
{

template <typename T> using View2 = nb::ndarray<nb::numpy, const T, nb::ndim<2>>;
template <typename T> using View3 = nb::ndarray<nb::numpy, const T, nb::ndim<3>>;
template <typename T> using Column = nb::ndarray<nb::numpy, T, nb::ndim<1>>;
using Reduced = nb::ndarray<nb::numpy, double, nb::ndim<4>>;
using Weights = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

// What stubs say of environments.
using Environments = nb::typed<nb::sequence, nb::typed<nb::mapping, nb::str, nb::object>>;

PyObject *simulation_error; // made once, when the module is

void check(int error, const sim_problem_t &problem)
{
    switch (error) {
    case SIM_OK:
        return;
    case SIM_ERR_INVALID:
        throw nb::value_error(problem.text);
    case SIM_ERR_MEMORY:
        PyErr_SetString(PyExc_MemoryError, problem.text);
        break;
    default:
        PyErr_SetString(simulation_error, problem.text);
    }
    throw nb::python_error();
}

// The number of a name; names are in the order of the core's numbers.
uint8_t number_of(const char *field, const std::string &name,
                  const std::vector<const char *> &names)
{
    std::string known;
    for (size_t i = 0; i < names.size(); i++) {
        if (name == names[i]) {
            return static_cast<uint8_t>(i);
        }
        known += std::string(i ? ", " : "") + names[i];
    }
    throw nb::value_error(
        (std::string(field) + ": is \"" + name + "\"; must be one of " + known).c_str());
}

using Sharing = std::optional<nb::typed<nb::mapping, nb::str, nb::float_>>;

sim_sharing_t to_sharing(const nb::object &given)
{
    sim_sharing_t sharing = {};
    const std::pair<const char *, double *> fields[] = {
        {"interval", &sharing.interval},     {"delay_low", &sharing.delay_low},
        {"delay_high", &sharing.delay_high}, {"loss", &sharing.loss},
        {"anticipate", &sharing.anticipate}, {"doubt", &sharing.doubt},
        {"mirror", &sharing.mirror},         {"mean", &sharing.mean},
    };
    for (const auto &[name, value] : fields) {
        const nb::object found = given.attr("get")(name);
        if (!nb::try_cast(found, *value)) {
            throw nb::value_error((std::string("sharing.") + name + ": must be a number").c_str());
        }
    }
    if (nb::len(given) != std::size(fields)) {
        throw nb::value_error("sharing: has an unknown field; known are interval, delay_low, "
                              "delay_high, loss, anticipate, doubt, mirror, mean");
    }
    return sharing;
}

struct Destroy {
    void operator()(sim_t *sim) const { sim_destroy(sim); }
};

class Simulation
{
  public:
    Simulation(const Environments &environments, const std::string &level,
               const std::string &scheduler, const std::string &load, const std::string &forwarding,
               uint32_t rule, uint32_t threads, bool record, const Sharing &sharing)
    {
        sim_options_t options = {};
        options.level = number_of("level", level, {"off", "basic", "full"});
        options.scheduler =
            number_of("scheduler", scheduler, {"maglev", "sed", "lsq", "alias", "p2c"});
        options.load = number_of("load", load, {"open", "active"});
        options.forwarding = number_of("forwarding", forwarding, {"nat", "gre"});
        options.rule = static_cast<uint8_t>(rule < SIM_RULE_COUNT ? rule : SIM_RULE_COUNT);
        options.threads = threads;
        options.record = record;
        if (sharing) {
            options.sharing = to_sharing(*sharing);
        }
        penstock::Scenarios scenarios = penstock::to_scenarios(environments);
        sim_problem_t problem;
        sim_t *sim = nullptr;
        check(sim_create(&sim, &options, scenarios.environments.data(),
                         static_cast<uint32_t>(scenarios.environments.size()), &problem),
              problem);
        sim_.reset(sim);
    }

    void advance(double until)
    {
        sim_problem_t problem;
        int error = alone([&] { return sim_advance(sim_.get(), until, &problem); });
        check(error, problem);
    }

    void act(const Weights &weights, const std::optional<Weights> &base, bool shared)
    {
        sim_problem_t problem;
        check_shape("weights", weights);
        if (base) {
            check_shape("base", *base);
        }
        const float *bases = base ? base->data() : nullptr;
        int error =
            alone([&] { return sim_act(sim_.get(), weights.data(), bases, shared, &problem); });
        check(error, problem);
    }

    nb::dict reduce(const std::vector<std::string> &names)
    {
        std::vector<lbrl_channel_t> channels;
        std::vector<std::unique_ptr<double[]>> values;
        std::vector<double *> out;
        for (const std::string &name : names) {
            channels.push_back(channel_of(name));
            values.push_back(std::make_unique<double[]>(slots_in_all() * 5));
            out.push_back(values.back().get());
        }
        sim_problem_t problem;
        int error = alone([&] {
            return sim_reduce(sim_.get(), channels.data(), static_cast<uint32_t>(channels.size()),
                              out.data(), &problem);
        });
        check(error, problem);
        nb::dict reduced;
        for (size_t i = 0; i < names.size(); i++) {
            reduced[names[i].c_str()] = to_array(std::move(values[i]));
        }
        return reduced;
    }

    nb::dict requests(uint32_t environment) const
    {
        if (busy_ || environment >= is().environments) {
            throw nb::index_error("environment: there is none of this number");
        }
        uint64_t count = 0;
        const sim_record_t *records = sim_records(sim_.get(), environment, &count);
        nb::dict columns;
        columns["arrival"] = column<double>(records, count, &sim_record_t::arrival);
        columns["duration"] = column<double>(records, count, &sim_record_t::duration);
        columns["work"] = column<float>(records, count, &sim_record_t::work);
        columns["io"] = column<float>(records, count, &sim_record_t::io);
        columns["pause"] = column<double>(records, count, &sim_record_t::pause);
        columns["connection"] = column<uint32_t>(records, count, &sim_record_t::connection);
        columns["server"] = column<int16_t>(records, count, &sim_record_t::server);
        columns["balancer"] = column<uint8_t>(records, count, &sim_record_t::balancer);
        columns["class"] = column<uint8_t>(records, count, &sim_record_t::class_number);
        return columns;
    }

    nb::dict counters()
    {
        nb::dict columns;
        for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
            if (is().counters[i] != nullptr) {
                columns[lbrl_counter_info(static_cast<lbrl_counter_t>(i))->name] =
                    by_slot(is().counters[i]);
            }
        }
        return columns;
    }

    nb::dict totals() const
    {
        sim_totals_t totals = sim_totals(sim_.get());
        nb::dict numbers;
        numbers["arrivals"] = totals.arrivals;
        numbers["completions"] = totals.completions;
        numbers["delays"] = totals.delays;
        numbers["others"] = totals.others;
        return numbers;
    }

    double time() const { return sim_time(sim_.get()); }
    const sim_results_t &is() const { return *sim_results(sim_.get()); }

    template <typename T> View3<T> by_slot(const T *values)
    {
        return View3<T>(values, {is().environments, is().balancers, is().slots}, nb::find(this));
    }
    template <typename T> View3<T> by_pair(const T *values)
    {
        return View3<T>(values, {is().environments, is().balancers, is().servers}, nb::find(this));
    }
    template <typename T> View2<T> by_row(const T *values, size_t columns)
    {
        return View2<T>(values, {is().environments, columns}, nb::find(this));
    }

  private:
    // Calls without the interpreter's lock; a second thread that calls meanwhile gets an error.
    template <typename Call> int alone(Call call)
    {
        if (busy_) {
            PyErr_SetString(simulation_error, "another thread uses this simulation");
            throw nb::python_error();
        }
        busy_ = true;
        nb::gil_scoped_release release;
        int error = call();
        nb::gil_scoped_acquire acquire;
        busy_ = false;
        return error;
    }

    size_t slots_in_all() const
    {
        return static_cast<size_t>(is().environments) * is().balancers * is().slots;
    }

    void check_shape(const char *name, const Weights &weights) const
    {
        if (weights.shape(0) != is().environments || weights.shape(1) != is().balancers ||
            weights.shape(2) != is().slots) {
            throw nb::value_error((std::string(name) + ": has another shape; must be [" +
                                   std::to_string(is().environments) + ", " +
                                   std::to_string(is().balancers) + ", " +
                                   std::to_string(is().slots) + "]")
                                      .c_str());
        }
    }

    static lbrl_channel_t channel_of(const std::string &name)
    {
        for (uint32_t i = 0; i < LBRL_CHANNEL_COUNT; i++) {
            if (name == lbrl_channel_info(static_cast<lbrl_channel_t>(i))->name) {
                return static_cast<lbrl_channel_t>(i);
            }
        }
        throw nb::value_error(
            ("channels: \"" + name + "\" is unknown; see penstock_core.CHANNELS").c_str());
    }

    Reduced to_array(std::unique_ptr<double[]> values) const
    {
        double *data = values.release();
        nb::capsule owner(data,
                          [](void *memory) noexcept { delete[] static_cast<double *>(memory); });
        return Reduced(data, {is().environments, is().balancers, is().slots, 5}, owner);
    }

    template <typename T>
    static Column<T> column(const sim_record_t *records, uint64_t count, T sim_record_t::*member)
    {
        auto values = std::make_unique<T[]>(count);
        for (uint64_t i = 0; i < count; i++) {
            values[i] = records[i].*member;
        }
        T *data = values.release();
        nb::capsule owner(data, [](void *memory) noexcept { delete[] static_cast<T *>(memory); });
        return Column<T>(data, {count}, owner);
    }

    std::unique_ptr<sim_t, Destroy> sim_;
    bool busy_ = false; // read and written under the interpreter's lock
};

const bool *flags(const uint8_t *values)
{
    return reinterpret_cast<const bool *>(values);
}

void register_frames(nb::class_<Simulation> &simulation)
{
    const auto view = nb::rv_policy::automatic;
    simulation
        .def_prop_ro(
            "active", [](Simulation &s) { return s.by_slot(flags(s.is().active)); }, view,
            "Slots that hold a backend, [E, L, S].")
        .def_prop_ro(
            "generation", [](Simulation &s) { return s.by_slot(s.is().generation); }, view,
            "Changes when a slot gets another backend, [E, L, S].")
        .def_prop_ro(
            "server", [](Simulation &s) { return s.by_slot(s.is().server); }, view,
            "Number of the slot's server, -1 for none, [E, L, S].")
        .def_prop_ro(
            "eligible", [](Simulation &s) { return s.by_slot(flags(s.is().eligible)); }, view,
            "Slots that take new connections, [E, L, S].")
        .def_prop_ro(
            "configured", [](Simulation &s) { return s.by_slot(s.is().configured); }, view,
            "Configured weights, [E, L, S].")
        .def_prop_ro(
            "weight", [](Simulation &s) { return s.by_slot(s.is().weight); }, view,
            "Weights in force, [E, L, S].")
        .def_prop_ro(
            "base", [](Simulation &s) { return s.by_slot(s.is().base); }, view,
            "Bases in force, 0 for the data plane's own, [E, L, S].")
        .def_prop_ro("counters", &Simulation::counters,
                     nb::sig("def counters(self) -> dict[str, typing.Annotated["
                             "numpy.typing.NDArray[numpy.int64], "
                             "dict(shape=(None, None, None), writable=False)]]"),
                     "By name, [E, L, S]; those that frames of this level have.")
        .def_prop_ro(
            "peers", [](Simulation &s) { return s.by_slot(s.is().peers); }, view,
            "Flows of the other balancers, -1 without a shared view, [E, L, S].");
}

void register_results(nb::class_<Simulation> &simulation)
{
    const auto view = nb::rv_policy::automatic;
    simulation
        .def_prop_ro(
            "step_completed", [](Simulation &s) { return s.by_pair(s.is().completed); }, view,
            "Requests that completed during the last advance(), [E, L, N].")
        .def_prop_ro(
            "step_duration", [](Simulation &s) { return s.by_pair(s.is().duration); }, view,
            "Sum of their durations in seconds, [E, L, N].")
        .def_prop_ro(
            "step_failed", [](Simulation &s) { return s.by_pair(s.is().failed); }, view,
            "Requests that failed during the last advance(), [E, L, N].")
        .def_prop_ro(
            "step_refused",
            [](Simulation &s) { return s.by_row(s.is().refused, s.is().balancers); }, view,
            "Connections that no server took during the last advance(), [E, L].")
        .def_prop_ro(
            "busy", [](Simulation &s) { return s.by_row(s.is().busy, s.is().servers); }, view,
            "CPU seconds used since the warm-up, [E, N].")
        .def_prop_ro(
            "offered", [](Simulation &s) { return s.by_row(s.is().offered, s.is().servers); }, view,
            "CPU seconds offered since the warm-up, [E, N].")
        .def("requests", &Simulation::requests, "environment"_a,
             nb::sig("def requests(self, environment: int) -> dict[str, "
                     "numpy.typing.NDArray[typing.Any]]"),
             "Copies the records of an environment, in the order in which requests ended: arrival, "
             "duration (seconds; not-a-number: failed), work, io, pause (until the connection's "
             "next "
             "request or its end), connection (in order of arrival), server (-1: none), balancer, "
             "class.")
        .def_prop_ro("totals", &Simulation::totals, nb::sig("def totals(self) -> dict[str, int]"),
                     "Events since the start over all environments: arrivals, completions, delays, "
                     "others.");
}

void register_simulation(nb::module_ &m)
{
    nb::class_<Simulation> simulation(
        m, "Simulation",
        "A batch of environments in virtual time around the real core. Arrays are read-only views "
        "of the simulator's memory, refreshed by advance(): E environments, L balancers, S slots, "
        "N "
        "servers; what an environment lacks is zero.");
    simulation
        .def(nb::init<const Environments &, const std::string &, const std::string &,
                      const std::string &, const std::string &, uint32_t, uint32_t, bool,
                      const Sharing &>(),
             "environments"_a, nb::kw_only(), "level"_a, "scheduler"_a, "load"_a, "forwarding"_a,
             "rule"_a = 0, "threads"_a = 1, "record"_a = true, "sharing"_a = nb::none(),
             "`sharing`: how balancers exchange their counts of flows: interval, delay_low, "
             "delay_high, "
             "mean (seconds), loss, anticipate, doubt, mirror (0 to 1). Raises ValueError with the "
             "place, value and range of what is wrong.")
        .def("advance", &Simulation::advance, "until"_a,
             "Simulates until that second and publishes frames, without the interpreter's lock.")
        .def("act", &Simulation::act, "weights"_a, "base"_a = nb::none(), "shared"_a = false,
             "Takes weights, and bases where given, into force, [E, L, S]. `shared`: bases are on "
             "the "
             "flows of all balancers.")
        .def(
            "reduce", &Simulation::reduce, "channels"_a,
            nb::sig("def reduce(self, channels: collections.abc.Sequence[str]) -> dict[str, "
                    "typing.Annotated[numpy.typing.NDArray[numpy.float64], dict(shape=(None, None, "
                    "None, 5))]]"),
            "By channel its penstock_core.REDUCTIONS, [E, L, S, 5]; not-a-number without samples.")
        .def_prop_ro("time", &Simulation::time, "Seconds of virtual time.")
        .def_prop_ro("environments", [](const Simulation &s) { return s.is().environments; })
        .def_prop_ro("balancers", [](const Simulation &s) { return s.is().balancers; })
        .def_prop_ro("servers", [](const Simulation &s) { return s.is().servers; })
        .def_prop_ro("slots", [](const Simulation &s) { return s.is().slots; });
    register_frames(simulation);
    register_results(simulation);
}

nb::tuple names(std::initializer_list<const char *> of)
{
    nb::list list;
    for (const char *name : of) {
        list.append(name);
    }
    return nb::tuple(list);
}

nb::dict numbers(std::initializer_list<const char *> of)
{
    nb::dict numbers;
    int number = 0;
    for (const char *name : of) {
        numbers[name] = number++;
    }
    return numbers;
}

#define NAME(symbol, name, ...) name,

void register_tables(nb::module_ &m)
{
    m.attr("SERVER_FIELDS") = names({SIM_SERVER_FIELDS(NAME)});
    m.attr("CLASS_FIELDS") = names({SIM_CLASS_FIELDS(NAME)});
    m.attr("RATE_FIELDS") = names({SIM_RATE_FIELDS(NAME)});
    m.attr("TRACE_FIELDS") = names({SIM_TRACE_FIELDS(NAME)});
    m.attr("EVENT_FIELDS") = names({SIM_EVENT_FIELDS(NAME)});
    m.attr("WORK_KINDS") = numbers({SIM_WORK_KINDS(NAME)});
    m.attr("EVENT_KINDS") = numbers({SIM_EVENT_KINDS(NAME)});
    m.attr("RULES") = numbers({"core", "sed", "marginal"});
}

#undef NAME

} // namespace

NB_MODULE(penstock_sim, m)
{
    m.doc() = "Discrete-event simulation of clients and servers around Penstock's core.";
    simulation_error =
        PyErr_NewException("penstock_sim.SimulationError", PyExc_RuntimeError, nullptr);
    m.attr("SimulationError") = nb::handle(simulation_error);
    register_tables(m);
    register_simulation(m);
}
