#include "lbrl/version.h"

const char *lbrl_version(void)
{
    return LBRL_VERSION;
}
