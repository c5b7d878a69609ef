// What each part of the bindings adds to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock
{
void register_core(nanobind::module_ &m);
void register_embedded(nanobind::module_ &m);
void register_statistics(nanobind::module_ &m);
void register_schedulers(nanobind::module_ &m);
void register_writers(nanobind::module_ &m);
} // namespace penstock
