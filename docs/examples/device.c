/* Drafts on a device that is chosen by name, verifies in a forayd that may run elsewhere.
 *   cc device.c $(pkg-config --cflags --libs foray) -o device
 *   ./device qwen2.5-coder-0.5b-instruct opencl:0 127.0.0.1:8700 */
#include <foray/generate.h>

#include <stdio.h>

static bool on_token(void *user, const struct foray_token *t) {
  (void)user;
  fwrite(t->text, 1, t->text_len, stdout);
  fflush(stdout);
  return true;
}

int main(int argc, char **argv) {
  const char *model = argc > 1 ? argv[1] : "smollm2-135m-instruct";
  const char *device = argc > 2 ? argv[2] : "cpu";
  char own[256]; /* a forayd of its own, where none is named */
  snprintf(own, sizeof own, "spawn:%s", model);

  struct foray_err err = {};
  struct foray_generator_opts options = {};
  options.edge = model;
  options.device = device;
  options.cloud = argc > 3 ? argv[3] : own;
  struct foray_generator *g = NULL;
  if (foray_generator_open(&options, &g, &err)) {
    fprintf(stderr, "%s\n", err.msg); /* names the device and what to do */
    return 1;
  }
  struct foray_request request = foray_request_default();
  request.prompt = "Write a function that adds two numbers.";
  request.chat = true;
  request.max_tokens = 48;
  struct foray_result result = {};
  enum foray_status status = foray_generator_run(g, &request, on_token, NULL, &result, &err);
  if (status == FORAY_OK)
    printf("\n[%u tokens; %u drafts by %s, %u accepted]\n", result.tokens, result.drafted, device,
           result.accepted);
  else
    fprintf(stderr, "%s\n", err.msg);
  foray_result_deinit(&result);
  foray_generator_close(g);
  return status == FORAY_OK ? 0 : 1;
}
