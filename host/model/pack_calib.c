#include "model/pack_job.h"

#include "core/err.h"
enum foray_status foray_pack_calibrate(struct foray_pack_job *j, struct foray_err *err) {
  (void)j;
  return foray_err_set(err, FORAY_E_UNSUPPORTED, "calibration");
}
