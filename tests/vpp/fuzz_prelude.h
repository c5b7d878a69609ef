/* Before all else in the plugin that fuzz targets are in: VPP itself is not built with ASan, and its headers must not lay
 * out what it shares with us as if it were. */
#ifndef FUZZ_PRELUDE_H
#define FUZZ_PRELUDE_H

#include <vppinfra/clib.h>
#undef CLIB_SANITIZE_ADDR

#endif
