/* Drafts at the edge, verifies in a forayd of its own, prints the text as it comes.
 *   cc generate.c $(pkg-config --cflags --libs foray) -o generate && ./generate
 * smollm2-135m-instruct */
#include <foray/generate.h>

#include <stdio.h>

static bool on_token(void *user, const struct foray_token *t) {
  (void)user;
  fwrite(t->text, 1, t->text_len, stdout);
  fflush(stdout);
  return true; /* false would stop */
}

int main(int argc, char **argv) {
  const char *model = argc > 1 ? argv[1] : "smollm2-135m-instruct";
  char cloud[256];
  snprintf(cloud, sizeof cloud, "spawn:%s", model);

  struct foray_err err = {};
  struct foray_generator_opts options = {};
  options.edge = model;
  options.cloud = cloud;
  struct foray_generator *g = NULL;
  if (foray_generator_open(&options, &g, &err)) {
    fprintf(stderr, "%s\n", err.msg);
    return 1;
  }
  struct foray_request request = foray_request_default();
  request.prompt = "Why is the sky blue?";
  request.chat = true;
  request.max_tokens = 32;
  struct foray_result result = {};
  enum foray_status status = foray_generator_run(g, &request, on_token, NULL, &result, &err);
  if (status == FORAY_OK)
    printf("\n[%u tokens in %u verifications, %u of %u drafts accepted]\n", result.tokens,
           result.verifications, result.accepted, result.drafted);
  else
    fprintf(stderr, "%s\n", err.msg);
  foray_result_deinit(&result);
  foray_generator_close(g);
  return status == FORAY_OK ? 0 : 1;
}
