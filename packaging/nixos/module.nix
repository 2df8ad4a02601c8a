# A control-plane node with Nodeseal. The units are those of the package, so that their confinement is the one that is tested.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.nodeseal;
  toml = pkgs.formats.toml { };
in
{
  options.services.nodeseal = {
    enable = lib.mkEnableOption "Nodeseal, a Kubernetes KMS plugin rooted in the node's own hardware";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The programs and their units.";
    };

    cluster = lib.mkOption {
      type = lib.types.strMatching "[a-z0-9][a-z0-9._-]{0,62}";
      example = "prod-eu-1";
      description = "Name of the cluster, the same on all its nodes. It can never be changed later.";
    };

    settings = lib.mkOption {
      inherit (toml) type;
      default = { };
      example = lib.literalExpression ''{ local_kek.max_age = "30d"; }'';
      description = ''
        The rest of the configuration. It is in the Nix store, which everybody may read. No key of it is a secret: logins
        are sealed on the node, by `nodeseal credentials seal`.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];

    # With a mode it is a file and no link into the store: after a switch the confined nodeseald reads it again by its name.
    environment.etc."nodeseal/nodeseal.toml".mode = "0644";
    environment.etc."nodeseal/nodeseal.toml".source = toml.generate "nodeseal.toml" (
      lib.recursiveUpdate {
        version = 1;
        inherit (cfg) cluster;
        seal.socket = "/run/nodeseal-sealer/sealer.sock";
      } cfg.settings
    );

    # As systemd/nodeseal.sysusers.
    users.users.nodeseal = {
      isSystemUser = true;
      group = "nodeseal";
      extraGroups = [ "tss" ];
      home = "/var/lib/nodeseal";
    };
    users.groups = {
      nodeseal = { };
      nodeseal-status = { };
      tss = { };
    };
    security.tpm2.enable = lib.mkDefault true;
    security.tpm2.applyUdevRules = lib.mkDefault true;

    systemd.packages = [ cfg.package ];
    systemd.tmpfiles.packages = [ cfg.package ];
    systemd.tmpfiles.rules = [ "d /var/lib/nodeseal 0700 nodeseal nodeseal -" ];

    # NixOS reads no [Install]. A switch never restarts the sockets: the folder is mounted into pods of kube-apiserver.
    systemd.sockets.nodeseal = {
      wantedBy = [ "sockets.target" ];
      restartIfChanged = false;
      stopIfChanged = false;
    };
    systemd.sockets.nodeseal-sealer = {
      wantedBy = [ "sockets.target" ];
      restartIfChanged = false;
      stopIfChanged = false;
    };
    systemd.services.nodeseal.wantedBy = [ "multi-user.target" ];
  };
}
