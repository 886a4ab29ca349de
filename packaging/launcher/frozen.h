// Become the frozen plugin `program` of the folder that lies beside the launcher; or print why not, and exit.
_Noreturn void become_frozen(const char *program, int argc, char **argv);
