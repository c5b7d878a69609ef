/*
 * Memory whose content can be put back in an instant, for fuzzing: while an image is being made or used, calloc() and
 * aligned_alloc() take from one region (the linker's --wrap sends them here, see CMakeLists.txt). What is written into
 * the region after image_keep() is forgotten by image_restore(), at the cost of the pages that were written to.
 * AddressSanitizer sees blocks as it does the heap's: gaps between them, and freed ones, are poisoned.
 */
#ifndef IMAGE_H
#define IMAGE_H

void image_begin(void);   /* from here on memory comes from the region */
void image_keep(void);    /* this is the content to come back to */
void image_restore(void); /* there it is again; blocks taken since are gone */

#endif
