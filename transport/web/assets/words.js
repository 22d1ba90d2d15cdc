// What the page says, in the languages that it speaks.

const words = {
  en: {
    system: "System", token: "Token", connect: "Connect", filter: "Find", api: "HTTP API",
    loginHelp: "Open the link that plugcast dev prints, or enter a system and a token. They stay in this tab.",
    on: "On", off: "Off", unknown: "Unknown", offline: "Offline", online: "Online", power: "Power", energy: "Energy",
    reach: "Reach", changed: "Last change", empty: "This system has no plugs yet.", none: "Not assigned",
    stale: "No news: its connection is down", notKnown: "not known", faults: "Faults",
    connecting: "Connecting…", live: "Live", waiting: "Disconnected. Next try in {s} s",
    unauthorized: "The token is not valid or has expired. Open a new link.",
    forbidden: "This token is not for this system.",
    "thrown-out": "An operator closed this page's connection.",
    protocol: "The server does not understand this page. Reload it.",
    spokenOn: "{name}: on", spokenOff: "{name}: off", spokenUnknown: "{name}: not known",
  },
  es: {
    system: "Sistema", token: "Token", connect: "Conectar", filter: "Buscar", api: "API HTTP",
    loginHelp: "Abra el enlace que muestra plugcast dev, o escriba un sistema y un token. No salen de esta pestaña.",
    on: "Encendido", off: "Apagado", unknown: "Desconocido", offline: "Sin conexión", online: "En línea",
    power: "Potencia", energy: "Energía", reach: "Conexión", changed: "Último cambio",
    empty: "Este sistema aún no tiene enchufes.", none: "Sin asignar",
    stale: "Sin noticias: su conexión está caída", notKnown: "sin datos", faults: "Fallos",
    connecting: "Conectando…", live: "En vivo", waiting: "Desconectado. Nuevo intento en {s} s",
    unauthorized: "El token no es válido o ha caducado. Abra un enlace nuevo.",
    forbidden: "Este token no es para este sistema.",
    "thrown-out": "Un operador cerró la conexión de esta página.",
    protocol: "El servidor no entiende esta página. Vuelva a cargarla.",
    spokenOn: "{name}: encendido", spokenOff: "{name}: apagado", spokenUnknown: "{name}: sin datos",
  },
};

export const languages = words;

// language is the first of the reader's languages that the page speaks.
export function language(wanted) {
  return wanted.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => tag in words) || "en";
}

// speaker returns the function that gives texts in a language.
export function speaker(lang) {
  return (key, values = {}) => words[lang][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
