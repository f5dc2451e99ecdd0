#include "server/agent/probe_tls.h"

#include <arpa/inet.h>
#include <assert.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

enum { PROBE_TLS_READ_BYTES = 16 * 1024, PROBE_TLS_ERROR = -1 };

struct probe_tls_context {
    SSL_CTX *ssl;
};

struct probe_tls {
    SSL *ssl;
    BIO *in;  /* what came; the SSL's */
    BIO *out; /* what is to be sent; the SSL's */
    struct buffer request;
    bool secure; /* the handshake is over, the request is sent */
    bool begun;  /* something came */
};

struct probe_tls_context *probe_tls_context_new(void)
{
    struct probe_tls_context *context = calloc(1, sizeof(*context));

    if (context == NULL) {
        return NULL;
    }
    context->ssl = SSL_CTX_new(TLS_client_method());
    if (context->ssl == NULL || SSL_CTX_set_min_proto_version(context->ssl, TLS1_2_VERSION) != 1) {
        probe_tls_context_free(context);
        return NULL;
    }
    /* A system without authorities verifies nothing: the checks say so. */
    (void)SSL_CTX_set_default_verify_paths(context->ssl);
    ERR_clear_error();
    return context;
}

void probe_tls_context_free(struct probe_tls_context *context)
{
    if (context != NULL) {
        SSL_CTX_free(context->ssl);
        free(context);
    }
}

/* Whom the certificate must be for. */
static bool probe_tls_expect(SSL *ssl, const char *name)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    /* OpenSSL's macro for it casts the const away; what it calls copies the name. */
    union {
        const char *in;
        void *out;
    } unconst = {.in = name};

    if (inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1) {
        return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
    }
    return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 &&
           SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, unconst.out) == 1;
}

struct probe_tls *probe_tls_new(struct probe_tls_context *context, const char *server_name,
                                bool skip_verify, struct slice request)
{
    struct probe_tls *tls = calloc(1, sizeof(*tls));

    if (tls == NULL) {
        return NULL;
    }
    buffer_append_slice(&tls->request, request);
    tls->ssl = SSL_new(context->ssl);
    tls->in = BIO_new(BIO_s_mem());
    tls->out = BIO_new(BIO_s_mem());
    if (tls->ssl == NULL || tls->in == NULL || tls->out == NULL || tls->request.failed ||
        !probe_tls_expect(tls->ssl, server_name)) {
        BIO_free(tls->in);
        BIO_free(tls->out);
        probe_tls_free(tls);
        return NULL;
    }
    SSL_set_bio(tls->ssl, tls->in, tls->out);
    SSL_set_verify(tls->ssl, skip_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    SSL_set_connect_state(tls->ssl);
    return tls;
}

void probe_tls_free(struct probe_tls *tls)
{
    if (tls != NULL) {
        SSL_free(tls->ssl);
        buffer_deinit(&tls->request);
        free(tls);
    }
}

static void probe_tls_explain(const struct probe_tls *tls, struct errmsg *err)
{
    const long verified = SSL_get_verify_result(tls->ssl);
    const unsigned long code = ERR_peek_error();

    if (verified != X509_V_OK && SSL_get_verify_mode(tls->ssl) != SSL_VERIFY_NONE) {
        (void)errmsg_set(err, PROBE_TLS_ERROR, "x509: %s", X509_verify_cert_error_string(verified));
    } else {
        (void)errmsg_set(err, PROBE_TLS_ERROR, "tls: %s",
                         code == 0 ? "the connection ended" : ERR_reason_error_string(code));
    }
    ERR_clear_error();
}

static void probe_tls_take_output(struct probe_tls *tls, struct buffer *cipher)
{
    const size_t pending = BIO_ctrl_pending(tls->out);
    char *to = pending == 0 ? NULL : buffer_reserve(cipher, pending);

    if (to != NULL && pending <= INT_MAX) {
        const int count = BIO_read(tls->out, to, (int)pending);

        cipher->size += count > 0 ? (size_t)count : 0;
    }
}

/* 1: done; 0: needs more input; -1: failed. */
static int probe_tls_shake_hands(struct probe_tls *tls)
{
    const int rc = SSL_do_handshake(tls->ssl);

    if (rc != 1) {
        return SSL_get_error(tls->ssl, rc) == SSL_ERROR_WANT_READ ? 0 : -1;
    }
    tls->secure = true;
    /* A memory BIO takes all of it at once. */
    return SSL_write(tls->ssl, tls->request.data, (int)tls->request.size) > 0 ? 1 : -1;
}

static enum probe_tls_state probe_tls_read(struct probe_tls *tls, struct buffer *plain)
{
    for (;;) { /* Ends: each turn takes from what was put in. */
        char *to = buffer_reserve(plain, PROBE_TLS_READ_BYTES);
        const int count = to == NULL ? -1 : SSL_read(tls->ssl, to, PROBE_TLS_READ_BYTES);

        if (to == NULL) {
            return PROBE_TLS_FAILED;
        }
        if (count > 0) {
            plain->size += (size_t)count;
            continue;
        }
        switch (SSL_get_error(tls->ssl, count)) {
        case SSL_ERROR_WANT_READ:
            return PROBE_TLS_OPEN;
        case SSL_ERROR_ZERO_RETURN:
            return PROBE_TLS_ENDED;
        default:
            return PROBE_TLS_FAILED;
        }
    }
}

enum probe_tls_state probe_tls_step(struct probe_tls *tls, struct slice input,
                                    struct buffer *cipher, struct buffer *plain, struct errmsg *err)
{
    enum probe_tls_state state = PROBE_TLS_OPEN;

    assert(input.size <= INT_MAX);
    if (input.size > 0 && !tls->begun && slice_starts_with(input, SLICE_LITERAL("HTTP/"))) {
        (void)errmsg_set(err, PROBE_TLS_ERROR, "http: server gave HTTP response to HTTPS client");
        return PROBE_TLS_FAILED;
    }
    ERR_clear_error();
    if (input.size > 0) {
        tls->begun = true;
        if (BIO_write(tls->in, input.data, (int)input.size) != (int)input.size) {
            (void)errmsg_set(err, PROBE_TLS_ERROR, "out of memory");
            return PROBE_TLS_FAILED;
        }
    }
    if (!tls->secure && probe_tls_shake_hands(tls) < 0) {
        state = PROBE_TLS_FAILED;
    }
    if (state == PROBE_TLS_OPEN && tls->secure) {
        state = probe_tls_read(tls, plain);
    }
    if (state == PROBE_TLS_FAILED) {
        probe_tls_explain(tls, err);
    }
    probe_tls_take_output(tls, cipher); /* An alert, too. */
    return state;
}
