# The three programs. A feature of Cargo.toml each: without one, what it brings is not compiled.
{
  lib,
  rustPlatform,
  pkg-config,
  tpm2-tss,
  features ? [ "tpm2" "pkcs11" "vault" "aws" "azure" "recovery" "etcd" ],
}:
rustPlatform.buildRustPackage {
  pname = "nodeseal";
  version = (lib.importTOML ../../Cargo.toml).package.version;
  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;
  # The other members of the workspace are tests and tools.
  cargoBuildFlags = [ "--package" "nodeseal" "--bins" ];
  buildNoDefaultFeatures = true;
  buildFeatures = features;
  nativeBuildInputs = [ pkg-config rustPlatform.bindgenHook ];
  buildInputs = lib.optional (lib.elem "tpm2" features) tpm2-tss;
  # They need servers, a software TPM and Go.
  doCheck = false;
  postInstall = ''
    for unit in nodeseal.service nodeseal.socket nodeseal-sealer.service nodeseal-sealer.socket; do
      install -D -m 0644 systemd/$unit $out/lib/systemd/system/$unit
      # In ExecPaths too: with NoExecPaths=/ programs start from the named paths alone.
      substituteInPlace $out/lib/systemd/system/$unit --replace-quiet /usr/bin/nodeseal $out/bin/nodeseal \
        --replace-quiet /usr/bin/kill /run/current-system/sw/bin/kill --replace-quiet "-/usr/lib -/usr/lib64" /nix/store
    done
    install -D -m 0644 systemd/nodeseal.tmpfiles $out/lib/tmpfiles.d/nodeseal.conf
    install -D -m 0644 systemd/nodeseal.catalog $out/lib/systemd/catalog/nodeseal.catalog
  '';
  meta = {
    description = "A Kubernetes KMS plugin rooted in the node's own hardware";
    license = lib.licenses.asl20;
    mainProgram = "nodeseal";
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
