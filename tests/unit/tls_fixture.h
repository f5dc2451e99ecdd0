#ifndef TESTS_UNIT_TLS_FIXTURE_H
#define TESTS_UNIT_TLS_FIXTURE_H

/* A TLS server in memory: what arrived is written to `in`, what it has to say is read from `out`.
 * Include after cmocka.h. */

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>

/* The other side, with a certificate that it signed itself. */
struct tls_peer {
    SSL_CTX *context;
    SSL *ssl;
    BIO *in, *out;
    EVP_PKEY *key;
    X509 *certificate;
};

static inline void tls_peer_open(struct tls_peer *peer, const char *name)
{
    char alternative[128];
    X509_NAME *subject;

    peer->key = EVP_EC_gen("P-256");
    peer->certificate = X509_new();
    assert_non_null(peer->key);
    assert_non_null(peer->certificate);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(peer->certificate), 1), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(peer->certificate), -60));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(peer->certificate), 3600));
    assert_int_equal(X509_set_pubkey(peer->certificate, peer->key), 1);
    subject = X509_get_subject_name(peer->certificate);
    assert_int_equal(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                                (const unsigned char *)"peer", -1, -1, 0),
                     1);
    assert_int_equal(X509_set_issuer_name(peer->certificate, subject), 1);
    (void)snprintf(alternative, sizeof(alternative), "DNS:%s", name);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alternative);
    assert_non_null(extension);
    assert_int_equal(X509_set_version(peer->certificate, 2), 1);
    assert_int_equal(X509_add_ext(peer->certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
    assert_true(X509_sign(peer->certificate, peer->key, EVP_sha256()) > 0);

    peer->context = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(peer->context, peer->certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(peer->context, peer->key), 1);
    peer->ssl = SSL_new(peer->context);
    peer->in = BIO_new(BIO_s_mem());
    peer->out = BIO_new(BIO_s_mem());
    SSL_set_bio(peer->ssl, peer->in, peer->out);
    SSL_set_accept_state(peer->ssl);
}

static inline void tls_peer_shut(struct tls_peer *peer)
{
    SSL_free(peer->ssl);
    SSL_CTX_free(peer->context);
    X509_free(peer->certificate);
    EVP_PKEY_free(peer->key);
}

#endif
