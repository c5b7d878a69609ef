// The module object; each part of the core has a file of its own that registers its classes.
#include <nanobind/nanobind.h>

#include "lbrl/version.h"
#include "modules.h"

namespace nb = nanobind;

NB_MODULE(penstock_core, m)
{
    m.doc() = "Bindings of Penstock's C core: packet processing, schedulers, shared memory.";
    m.attr("__version__") = lbrl_version();
    penstock::register_core(m);
    penstock::register_statistics(m);
    penstock::register_writers(m);
    penstock::register_schedulers(m);
    penstock::register_embedded(m);
}
