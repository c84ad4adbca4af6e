/* Drafts on a device that is chosen by name, verifies in a forayd that runs elsewhere.
 *   cc device.c $(pkg-config --cflags --libs foray) -o device
 *   ./device opencl:0 127.0.0.1:8700 qwen2.5-coder-0.5b-instruct */
#include <foray/generate.h>

#include <stdio.h>

static bool on_token(void *user, const struct foray_token *t) {
  (void)user;
  fwrite(t->text, 1, t->text_len, stdout);
  fflush(stdout);
  return true;
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: %s DEVICE CLOUD MODEL\n", argv[0]);
    return 2;
  }
  struct foray_err err = {};
  struct foray_generator_opts options = {};
  options.device = argv[1];
  options.cloud = argv[2]; /* HOST:PORT, unix:PATH, or spawn:MODEL for one of its own */
  options.edge = argv[3];
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
    printf("\n[%u tokens; %u of %u drafts of %s accepted]\n", result.tokens, result.accepted, result.drafted,
           argv[1]);
  else
    fprintf(stderr, "%s\n", err.msg);
  foray_result_deinit(&result);
  foray_generator_close(g);
  return status == FORAY_OK ? 0 : 1;
}
