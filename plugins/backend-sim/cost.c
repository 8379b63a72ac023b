/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-sim/cost.c - the price of a step: a roofline. A step takes a fixed time plus
 * the longer of its arithmetic and its memory traffic, both counted from the program; options
 * add a price for each row and each key. Only IEEE double arithmetic in a fixed order, so that a
 * simulated run takes the same virtual time on every machine.
 */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>

int sim_fail(pb_err *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->code = code;
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
    }
    return code;
}

uint64_t sim_piece_bytes(const pb_piece *p, int32_t n)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        if (p[i].t->cols > 0)
            sum += (double)p[i].n_rows * (double)p[i].t->row_bytes * (double)p[i].n_cols /
                   (double)p[i].t->cols;
    return sum < 9e18 ? (uint64_t)sum : (uint64_t)9e18;
}

static double elements(const pb_program *p, pb_wid w)
{
    return w < 0 ? 0.0 : (double)p->weights[w].rows * (double)p->weights[w].cols;
}

static double bytes(const pb_program *p, pb_wid w)
{
    return w < 0 ? 0.0 : (double)sim_piece_bytes(p->weights[w].pieces, p->weights[w].n_pieces);
}

static void add_linear(sim_cost *c, const pb_program *p, const pb_op_linear *o)
{
    double *macs = p->vals[o->x].picked ? &c->out_macs : &c->row_macs;
    for (int32_t i = 0; i < o->n_w; i++) {
        *macs += elements(p, o->w[i]);
        c->weight_bytes += bytes(p, o->w[i]);
    }
}

static void add_attend(struct pb_exec *x, const pb_program *p, const pb_op_attend *o, int32_t i)
{
    const pb_kv_shape *s = &p->groups[o->group];
    x->cost.key_macs += (double)o->n_heads * (double)(o->head_dim + o->v_dim);
    x->cost.key_bytes += (double)s->n_kv_heads * (double)(s->head_dim + s->v_dim) *
                         (double)x->dev->cfg->kv_bits / 8.0;
    if (x->attend_op[o->group] < 0)
        x->attend_op[o->group] = i;
}

static void add_moe(sim_cost *c, const pb_program *p, const pb_op_moe *o)
{
    double part = (double)o->n_used / (double)o->n_experts;
    double n = elements(p, o->gate) + elements(p, o->up) + elements(p, o->down);
    c->row_macs += elements(p, o->router) + n * part;
    c->weight_bytes += bytes(p, o->router);
    c->moe_bytes += bytes(p, o->gate) + bytes(p, o->up) + bytes(p, o->down);
    c->moe_part = part;
}

int sim_cost_of(struct pb_exec *x, const pb_program *p, pb_err *err)
{
    for (int32_t i = 0; i < p->n_ops; i++) {
        const pb_op *o = &p->ops[i];
        switch (o->kind) {
        case PB_OP_LINEAR: add_linear(&x->cost, p, &o->u.linear); break;
        case PB_OP_ATTEND: add_attend(x, p, &o->u.attend, i); break;
        case PB_OP_MOE: add_moe(&x->cost, p, &o->u.moe); break;
        case PB_OP_EMBED:
        case PB_OP_NORM:
        case PB_OP_ADD:
        case PB_OP_ROWS: break;
        default:
            return sim_fail(err, PB_E_UNSUPPORTED,
                            "backend-sim: operation %d of the program, \"%s\", has kind %d, which "
                            "has no price here",
                            i, o->name, o->kind);
        }
    }
    return 0;
}

int64_t sim_cost_ns(const struct pb_exec *x, int32_t n_rows, int32_t n_out, double keys,
                    double pairs, double copied)
{
    const sim_cost *c = &x->cost;
    const sim_config *o = x->dev->cfg;
    double part = c->moe_part * (double)n_rows;
    double macs = c->row_macs * (double)n_rows + c->out_macs * (double)n_out + c->key_macs * pairs;
    double moved = c->weight_bytes + c->moe_bytes * (part < 1.0 ? part : 1.0) +
                   c->key_bytes * keys + 2.0 * copied;
    double work = o->gflops > 0.0 ? 2.0 * macs / o->gflops : 0.0; /* GFLOP/s = operations a ns */
    double move = o->gbps > 0.0 ? moved / o->gbps : 0.0;
    double ns = o->step_us * 1000.0 + o->row_us * 1000.0 * (double)n_rows + o->kv_ns * keys;
    ns += work > move ? work : move;
    return ns < 9e18 ? (int64_t)ns : INT64_MAX / 2;
}
