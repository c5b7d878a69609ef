// From dictionaries of Python to environments of the simulator.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "lbsim/sim.h"

namespace penstock
{
namespace nb = nanobind;

// Environments, and the arrays that they refer to.
struct Scenarios {
    std::vector<sim_environment_t> environments;
    std::vector<nb::object> arrays;
};

// Throws ValueError with the place of what is wrong. Numbers are checked by sim_create().
Scenarios to_scenarios(const nb::sequence &environments);

} // namespace penstock
