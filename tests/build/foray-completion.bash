# bash completion for foray, forayd and foray-tune: the programs themselves list their commands and options.
_foray() {
  local cur=${COMP_WORDS[COMP_CWORD]} prog=${COMP_WORDS[0]} sub=
  if [ "$COMP_CWORD" -ge 2 ] && [ "${prog##*/}" != forayd ]; then sub=${COMP_WORDS[1]}; fi
  if [ "$COMP_CWORD" -eq 1 ] && [ "${prog##*/}" != forayd ]; then
    mapfile -t COMPREPLY < <(compgen -W "$("$prog" --list-commands 2>/dev/null)" -- "$cur")
    return
  fi
  case $cur in
    -*) mapfile -t COMPREPLY < <(compgen -W "$("$prog" ${sub:+"$sub"} --completion-bash 2>/dev/null)" -- "$cur") ;;
    *) mapfile -t COMPREPLY < <(compgen -f -- "$cur"; compgen -W "$("$prog" models --names 2>/dev/null)" -- "$cur") ;;
  esac
}
complete -F _foray foray forayd foray-tune
