/* api/edge_node.h - everything that drafts, opened from names: model -> weight image (packed into the cache
 * when it is not there yet) -> device -> drafter. One owner, one thread. */
#ifndef FORAY_API_EDGE_NODE_H
#define FORAY_API_EDGE_NODE_H

#include "model/model.h"
#include "rt/drafter.h"

#include <foray/generate.h>

struct foray_edge_node;

/* Uses edge, device, exits, ctx, threads, no_exits, full_head and progress of o. logits: make room for
 * foray_drafter_logits. */
enum foray_status foray_edge_node_open(const struct foray_generator_opts *o, bool logits,
                                       struct foray_edge_node **out, struct foray_err *err) FORAY_NODISCARD;
void foray_edge_node_close(struct foray_edge_node *n); /* NULL is allowed */

const struct foray_model *foray_edge_node_model(const struct foray_edge_node *n); /* borrowed */
struct foray_drafter *foray_edge_node_drafter(const struct foray_edge_node *n);   /* borrowed */
struct foray_dev *foray_edge_node_device(const struct foray_edge_node *n);        /* borrowed */
const struct foray_image *foray_edge_node_image(const struct foray_edge_node *n); /* borrowed */
/* Default confidence threshold of exit e, from the exits file; 2 (never) where there is no such exit. */
float foray_edge_node_threshold(const struct foray_edge_node *n, uint32_t e);
/* Default of foray_draft_params.check. */
uint32_t foray_edge_node_check(const struct foray_edge_node *n);

#endif
