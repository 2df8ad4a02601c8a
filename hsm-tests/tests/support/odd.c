/*
 * A PKCS#11 module in front of another one, which behaves as some tokens do. What it does is ruled by its environment:
 *
 *   ODD_REAL       the module behind it
 *   ODD_CALLS      a file to which each C_Login adds a line
 *   ODD_WRONG_PIN  what C_Login says of a wrong PIN, in place of CKR_PIN_INCORRECT
 *   ODD_LOGIN      what C_Login says of any PIN, which the token does not see
 *   ODD_HANG       while this file is there, C_Login never returns
 *   ODD_MODE       words: noflags (the token does not count), clock (it has one, and tells no time that can be read),
 *                  zeroiv (makes its own IV where zeros are given, as AWS CloudHSM), nulliv (makes its own IV where none is given,
 *                  and puts it behind the text, as Luna in FIPS mode), keepszeros (takes zeros alone, and uses them),
 *                  oaep (takes RSA-OAEP with SHA-256 and MGF1 with SHA-256 alone, for which the module behind it, which has SHA-1
 *                  alone, does that), nosource (the same, and wants no source of a label)
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

typedef unsigned long ulong;

/* CK_FUNCTION_LIST of PKCS#11 v2.40, its functions by their places. */
struct list {
    unsigned char version[2];
    void *function[68];
};
enum { GET_FUNCTION_LIST = 3, GET_TOKEN_INFO = 6, LOGIN = 18, ENCRYPT_INIT = 29, ENCRYPT = 30, DECRYPT_INIT = 33 };

struct mechanism {
    ulong type;
    void *parameter;
    ulong length;
};
struct gcm {
    unsigned char *iv;
    ulong iv_bytes;
    ulong iv_bits;
    unsigned char *aad;
    ulong aad_bytes;
    ulong tag_bits;
};

struct oaep {
    ulong hash;
    ulong mask;
    ulong source;
    void *data;
    ulong data_bytes;
};

#define CKM_AES_GCM 0x1087
#define CKM_RSA_PKCS_OAEP 9
#define CKM_SHA_1 0x220
#define CKM_SHA256 0x250
#define CKG_MGF1_SHA1 1
#define CKG_MGF1_SHA256 2
#define CKZ_DATA_SPECIFIED 1
#define CKR_PIN_INCORRECT 0xA0
#define CKR_MECHANISM_PARAM_INVALID 0x71
#define CKF_CLOCK_ON_TOKEN 0x40
#define CKF_USER_PIN_COUNT_LOW 0x10000
#define CKF_USER_PIN_FINAL_TRY 0x20000
#define CKF_USER_PIN_LOCKED 0x40000
#define IV_BYTES 12

static struct list *real, ours;
static unsigned char own_iv[IV_BYTES];
static int appends;

static int mode(const char *word) {
    const char *words = getenv("ODD_MODE");
    return words && strstr(words, word);
}

static ulong value(const char *name) {
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 0) : 0;
}

static ulong token_info(ulong slot, unsigned char *info) {
    ulong (*next)(ulong, unsigned char *) = real->function[GET_TOKEN_INFO];
    ulong rv = next(slot, info);
    /* Label, manufacturer, model and serial number come first, and the time is the last 16 bytes of 208. */
    ulong *flags = (ulong *)(info + 96);
    if (rv == 0 && mode("noflags"))
        *flags &= ~(ulong)(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED);
    if (rv == 0 && mode("clock")) {
        *flags |= CKF_CLOCK_ON_TOKEN;
        memcpy(info + 188, "16:50:23\0\0\0\0\0\0\0", 16);
    }
    return rv;
}

static ulong login(ulong session, ulong user, unsigned char *pin, ulong length) {
    ulong (*next)(ulong, ulong, unsigned char *, ulong) = real->function[LOGIN];
    const char *calls = getenv("ODD_CALLS"), *hang = getenv("ODD_HANG");
    FILE *file = calls ? fopen(calls, "a") : NULL;
    if (file) {
        fputs("C_Login\n", file);
        fclose(file);
    }
    while (hang && access(hang, F_OK) == 0)
        sleep(1);
    if (value("ODD_LOGIN"))
        return value("ODD_LOGIN");
    ulong rv = next(session, user, pin, length);
    return rv == CKR_PIN_INCORRECT && value("ODD_WRONG_PIN") ? value("ODD_WRONG_PIN") : rv;
}

static ulong oaep_init(int function, ulong session, struct mechanism *mechanism, ulong key) {
    ulong (*next)(ulong, struct mechanism *, ulong) = real->function[function];
    const struct oaep *given = mechanism->parameter;
    ulong source = mode("nosource") ? 0 : CKZ_DATA_SPECIFIED;
    if (mechanism->length != sizeof *given || given->hash != CKM_SHA256 || given->mask != CKG_MGF1_SHA256 ||
        given->source != source || given->data || given->data_bytes)
        return CKR_MECHANISM_PARAM_INVALID;
    struct oaep own = {CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, NULL, 0};
    struct mechanism with = {mechanism->type, &own, sizeof own};
    return next(session, &with, key);
}

static int is_oaep(const struct mechanism *mechanism) {
    return mechanism->type == CKM_RSA_PKCS_OAEP && (mode("oaep") || mode("nosource"));
}

static ulong decrypt_init(ulong session, struct mechanism *mechanism, ulong key) {
    ulong (*next)(ulong, struct mechanism *, ulong) = real->function[DECRYPT_INIT];
    return is_oaep(mechanism) ? oaep_init(DECRYPT_INIT, session, mechanism, key) : next(session, mechanism, key);
}

static ulong encrypt_init(ulong session, struct mechanism *mechanism, ulong key) {
    static const unsigned char zeros[IV_BYTES];
    ulong (*next)(ulong, struct mechanism *, ulong) = real->function[ENCRYPT_INIT];
    appends = 0;
    if (is_oaep(mechanism))
        return oaep_init(ENCRYPT_INIT, session, mechanism, key);
    if (mechanism->type != CKM_AES_GCM || (!mode("zeroiv") && !mode("nulliv") && !mode("keepszeros")))
        return next(session, mechanism, key);
    struct gcm *given = mechanism->parameter, own = *given;
    if (getrandom(own_iv, IV_BYTES, 0) != IV_BYTES)
        return 5;
    if (!mode("nulliv")) {
        if (!given->iv || given->iv_bytes != IV_BYTES || memcmp(given->iv, zeros, IV_BYTES))
            return CKR_MECHANISM_PARAM_INVALID;
        if (mode("keepszeros"))
            return next(session, mechanism, key);
        memcpy(given->iv, own_iv, IV_BYTES);
    } else {
        if (given->iv)
            return CKR_MECHANISM_PARAM_INVALID;
        appends = 1;
    }
    own.iv = own_iv;
    own.iv_bytes = IV_BYTES;
    own.iv_bits = 8 * IV_BYTES;
    struct mechanism with = {mechanism->type, &own, sizeof own};
    return next(session, &with, key);
}

static ulong encrypt(ulong session, unsigned char *data, ulong length, unsigned char *text, ulong *text_length) {
    ulong (*next)(ulong, unsigned char *, ulong, unsigned char *, ulong *) = real->function[ENCRYPT];
    ulong rv = next(session, data, length, text, text_length);
    if (rv == 0 && appends) {
        if (text)
            memcpy(text + *text_length, own_iv, IV_BYTES);
        *text_length += IV_BYTES;
    }
    return rv;
}

__attribute__((visibility("default"))) ulong C_GetFunctionList(struct list **list) {
    const char *path = getenv("ODD_REAL");
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    ulong (*get)(struct list **) = library ? dlsym(library, "C_GetFunctionList") : NULL;
    if (!get || get(&real) != 0)
        return 5;
    ours = *real;
    ours.function[GET_FUNCTION_LIST] = C_GetFunctionList;
    ours.function[GET_TOKEN_INFO] = token_info;
    ours.function[LOGIN] = login;
    ours.function[ENCRYPT_INIT] = encrypt_init;
    ours.function[ENCRYPT] = encrypt;
    ours.function[DECRYPT_INIT] = decrypt_init;
    *list = &ours;
    return 0;
}
