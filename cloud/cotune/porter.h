/* cotune/porter.h - the English stemmer that published Rouge scores use: Porter's of 1980 with the extensions
 * of NLTK's default mode. Pure, any thread. */
#ifndef FORAY_COTUNE_PORTER_H
#define FORAY_COTUNE_PORTER_H

#include <stddef.h>

enum { FORAY_STEM_MAX = 128 };
/* Stems a lower-case word of a-z0-9 in place (buffers hold FORAY_STEM_MAX bytes; longer words stay as they
 * are). Returns the new length; never longer than len + 1. */
size_t foray_porter_stem(char *word, size_t len);

#endif
