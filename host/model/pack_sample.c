#include "model/pack_job.h"
const char foray_pack_sample[] = "";
