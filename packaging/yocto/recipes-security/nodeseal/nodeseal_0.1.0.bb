SUMMARY = "Kubernetes KMS plugin rooted in the node's own hardware"
DESCRIPTION = "Encrypts what kube-apiserver stores, under keys that the TPM or a token of this node seals"
SECTION = "console/network"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

inherit cargo pkgconfig systemd useradd features_check

# The confinement of the units needs systemd.
REQUIRED_DISTRO_FEATURES = "systemd"

# Your copy of the sources, at a commit of a release: set NODESEAL_SRC in the layer that uses this one.
SRC_URI = "${NODESEAL_SRC}"

# Printed by crates.sh of this layer.
require nodeseal-crates.inc

# One for each feature of Cargo.toml.
PACKAGECONFIG ??= "tpm2 pkcs11 vault aws azure recovery etcd"
PACKAGECONFIG[tpm2] = "--features tpm2,,tpm2-tss,libtss2 libtss2-tcti-device"
PACKAGECONFIG[pkcs11] = "--features pkcs11,,"
PACKAGECONFIG[vault] = "--features vault,,"
PACKAGECONFIG[aws] = "--features aws,,"
PACKAGECONFIG[azure] = "--features azure,,"
PACKAGECONFIG[recovery] = "--features recovery,,"
PACKAGECONFIG[etcd] = "--features etcd,,"

CARGO_BUILD_FLAGS:append = " --package nodeseal --bins --no-default-features ${PACKAGECONFIG_CONFARGS}"

do_install:append() {
    for unit in nodeseal.service nodeseal.socket nodeseal-sealer.service nodeseal-sealer.socket; do
        install -D -m 0644 ${S}/systemd/$unit ${D}${systemd_system_unitdir}/$unit
    done
    install -D -m 0644 ${S}/systemd/nodeseal.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/nodeseal.conf
    install -D -m 0644 ${S}/systemd/nodeseal.catalog ${D}${nonarch_libdir}/systemd/catalog/nodeseal.catalog
    install -d -m 0755 ${D}${sysconfdir}/nodeseal
}

# The sockets wait for a configuration; the service is started after `nodeseal init`.
SYSTEMD_SERVICE:${PN} = "nodeseal-sealer.socket nodeseal.socket nodeseal.service"

# As systemd/nodeseal.sysusers.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system tss; --system nodeseal-status; --system nodeseal"
USERADD_PARAM:${PN} = "--system --gid nodeseal --groups tss --home-dir ${localstatedir}/lib/nodeseal --no-create-home --shell /sbin/nologin nodeseal"

FILES:${PN} += "${systemd_system_unitdir} ${nonarch_libdir}/tmpfiles.d ${nonarch_libdir}/systemd/catalog"
