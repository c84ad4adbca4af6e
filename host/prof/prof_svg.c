/* The roofline as SVG, and beside it where the time goes. */
#include "prof/prof_impl.h"

#include <math.h>
#include <string.h>

enum { LEFT = 70, TOP = 46, WIDTH = 430, HEIGHT = 300, BARS = 590, BAR_WIDTH = 230, TOTAL = 900 };

static double intensity(const json_t *row) {
  double b = prof_num(row, "bytes");
  return b > 0 ? 2 * prof_num(row, "macs") / b : 0;
}
static double speed(const json_t *row) {
  double t = prof_num(row, "time");
  return t > 0 ? 2 * prof_num(row, "macs") / t : 0;
}

/* Names come from the program and from the command line. */
static void text(FILE *f, const char *s) {
  for (; *s; s++) switch (*s) {
    case '<': fputs("&lt;", f); break;
    case '>': fputs("&gt;", f); break;
    case '&': fputs("&amp;", f); break;
    case '"': fputs("&quot;", f); break;
    default: fputc((unsigned char)*s < 32 ? ' ' : *s, f);
    }
}

struct axes {
  double x0, x1, y0, y1;
};
static double at_x(const struct axes *a, double x) {
  return LEFT + WIDTH * log(x / a->x0) / log(a->x1 / a->x0);
}
static double at_y(const struct axes *a, double y) {
  return TOP + HEIGHT * (1 - log(y / a->y0) / log(a->y1 / a->y0));
}

static struct axes span(const json_t *ops, double roof) {
  struct axes a = {1e300, 0, 1e300, 0};
  for (size_t i = 0; i < json_array_size(ops); i++) {
    const json_t *o = json_array_get(ops, i);
    if (intensity(o) <= 0 || speed(o) <= 0) continue;
    a.x0 = fmin(a.x0, intensity(o)), a.x1 = fmax(a.x1, intensity(o));
    a.y0 = fmin(a.y0, speed(o)), a.y1 = fmax(a.y1, speed(o));
  }
  if (a.x1 <= 0) a = (struct axes){1, 1, 1, 1};
  if (roof > 0) a.y1 = fmax(a.y1, roof * a.x1);
  a.x0 = pow(10, floor(log10(a.x0) * 2) / 2), a.x1 = pow(10, ceil(log10(a.x1 * 1.3) * 2) / 2);
  a.y0 = pow(10, floor(log10(a.y0) * 2) / 2), a.y1 = pow(10, ceil(log10(a.y1 * 1.3) * 2) / 2);
  return a;
}

static void grid(FILE *f, const struct axes *a, bool cycles) {
  fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" class=\"box\"/>\n", LEFT, TOP, WIDTH,
          HEIGHT);
  for (double x = pow(10, ceil(log10(a->x0) - 1e-9)); x <= a->x1 * 1.001; x *= 10)
    fprintf(f, "<path class=\"grid\" d=\"M%.1f %dv%d\"/><text x=\"%.1f\" y=\"%d\" class=\"mid\">%g</text>\n",
            at_x(a, x), TOP, HEIGHT, at_x(a, x), TOP + HEIGHT + 16, x);
  for (double y = pow(10, ceil(log10(a->y0) - 1e-9)); y <= a->y1 * 1.001; y *= 10)
    fprintf(f, "<path class=\"grid\" d=\"M%d %.1fh%d\"/><text x=\"%d\" y=\"%.1f\" class=\"end\">%g</text>\n",
            LEFT, at_y(a, y), WIDTH, LEFT - 6, at_y(a, y) + 4, y);
  fprintf(f, "<text x=\"%d\" y=\"%d\" class=\"mid\">operations a byte moved</text>\n", LEFT + WIDTH / 2,
          TOP + HEIGHT + 34);
  fprintf(f, "<text x=\"16\" y=\"%d\" class=\"mid\" transform=\"rotate(-90 16 %d)\">%s</text>\n",
          TOP + HEIGHT / 2, TOP + HEIGHT / 2, cycles ? "operations a cycle" : "giga-operations a second");
}

void foray_prof_svg(FILE *f, const json_t *r) {
  const json_t *ops = json_object_get(r, "ops");
  bool cycles = !strcmp(prof_str(r, "unit"), "cycles");
  double roof = prof_num(r, "roof"), time = prof_num(r, "time"), widest = 1;
  struct axes a = span(ops, roof);
  fprintf(
      f,
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"400\" viewBox=\"0 0 %d 400\">\n<style>"
      "text{font:11px sans-serif;fill:#333}.mid{text-anchor:middle}.end{text-anchor:end}.t{font-size:14px}"
      ".box{fill:#fff;stroke:#666}.grid{stroke:#ddd;fill:none}.roof{stroke:#b33;stroke-width:2;fill:none}"
      ".dot{fill:#27c;fill-opacity:.75}.bar{fill:#27c}</style>\n<rect width=\"100%%\" height=\"100%%\" "
      "fill=\"#fafafa\"/>\n<text x=\"%d\" y=\"24\" class=\"t\">",
      TOTAL, TOTAL, LEFT);
  text(f, prof_str(r, "model"));
  fputs(" on ", f);
  text(f, prof_str(r, "device"));
  fputs("</text>\n", f);
  grid(f, &a, cycles);
  if (roof > 0) {
    double x0 = fmax(a.x0, a.y0 / roof), x1 = fmin(a.x1, a.y1 / roof);
    fprintf(f,
            "<path class=\"roof\" d=\"M%.1f %.1fL%.1f %.1f\"/><text x=\"%.1f\" y=\"%.1f\">memory: %.3g "
            "%s</text>\n",
            at_x(&a, x0), at_y(&a, roof * x0), at_x(&a, x1), at_y(&a, roof * x1), at_x(&a, x0) + 8,
            at_y(&a, roof * x0) - 14, roof, cycles ? "bytes a cycle" : "GB/s");
  }
  for (size_t i = 0; i < json_array_size(ops); i++) {
    const json_t *o = json_array_get(ops, i);
    widest = fmax(widest, prof_num(o, "time"));
    if (intensity(o) <= 0 || speed(o) <= 0) continue;
    double part = time > 0 ? prof_num(o, "time") / time : 0;
    fprintf(f, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"><title>", at_x(&a, intensity(o)),
            at_y(&a, speed(o)), 3 + 14 * sqrt(part));
    text(f, prof_str(o, "name"));
    fprintf(f, "</title></circle><text x=\"%.1f\" y=\"%.1f\">", at_x(&a, intensity(o)) + 6,
            at_y(&a, speed(o)) - 6);
    text(f, prof_str(o, "name"));
    fputs("</text>\n", f);
  }
  fprintf(f, "<text x=\"%d\" y=\"%d\">share of the time</text>\n", BARS, TOP - 8);
  int row = 0;
  for (size_t i = 0; i < json_array_size(ops) && row < 20; i++) {
    const json_t *o = json_array_get(ops, i);
    double t = prof_num(o, "time");
    if (time <= 0 || t / time < 0.002) continue;
    int y = TOP + 16 * row++;
    fprintf(f, "<text x=\"%d\" y=\"%d\" class=\"end\">", BARS - 6, y + 11);
    text(f, prof_str(o, "name"));
    fprintf(f,
            "</text><rect class=\"bar\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"12\"/><text x=\"%.1f\" "
            "y=\"%d\">%.1f%%</text>\n",
            BARS, y + 1, BAR_WIDTH * t / widest, BARS + 4 + BAR_WIDTH * t / widest, y + 11, 100 * t / time);
  }
  fputs("</svg>\n", f);
}
