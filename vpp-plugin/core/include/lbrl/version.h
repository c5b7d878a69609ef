/* Version of the core library; the same number as the Python distribution's. */
#ifndef LBRL_VERSION_H
#define LBRL_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

#define LBRL_VERSION "0.1.0"

const char *lbrl_version(void);

#ifdef __cplusplus
}
#endif
#endif
